"""Bins, noisy votes, resampling and top-up."""
