"""The public models, and where they are loaded from."""
