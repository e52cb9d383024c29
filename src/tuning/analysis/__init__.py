"""What a finished study shows, part by part; `transfer_analysis` puts the parts together."""
