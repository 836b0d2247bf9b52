"""How a stage joins resources and pure code. Knows resources and Dagster's context, and no asset."""
