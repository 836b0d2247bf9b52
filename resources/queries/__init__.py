"""Sources that are database queries, and the check that a query is row-wise."""
