"""Scoring a model on a suite of items."""
