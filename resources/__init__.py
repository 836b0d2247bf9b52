"""Dagster resources and IO managers: ledger, storage, private zone, models, queries and annotators."""
