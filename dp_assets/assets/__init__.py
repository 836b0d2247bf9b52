"""The Dagster layer: one file an asset, named after its key. Bodies take the plan, charge, call pure code, return."""
