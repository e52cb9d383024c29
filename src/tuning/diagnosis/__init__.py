"""What `tuning doctor` looks at: the machine, the installation, and where results go. No torch."""
