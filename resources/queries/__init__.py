"""Sources that are queries."""
