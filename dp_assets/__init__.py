"""Differentially private synthetic instructions as a Dagster project."""
