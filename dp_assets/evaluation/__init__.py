"""Figures for the reports."""
