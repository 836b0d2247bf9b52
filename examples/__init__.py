"""Profiles to start from, and in `extend` code to start from."""
