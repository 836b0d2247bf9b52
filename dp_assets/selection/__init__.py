"""Selection: bins, noisy votes (mechanism 2), resampling and top-up."""
