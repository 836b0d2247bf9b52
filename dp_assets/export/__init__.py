"""Exports a release as one folder that Hugging Face's libraries open, with cards, the guarantee and checksums."""
