"""What the results of a study say: which hyperparameters matter, and what to try next. No torch."""
