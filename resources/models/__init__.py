"""The public models and how they are loaded."""
