"""Privacy statements: their figures, pages and verification. They add no claim to those of `privacy`."""
