"""The two zones of the data folder, and how artifacts lie in them."""
