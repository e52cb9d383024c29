"""What is asked: words, splits, bands, and the items of every task. No torch."""
