"""The two zones of the data folder, and the layout of artifacts in them."""
