"""What is said to people: privacy statements, their figures, pages and verification. Adds no claim to `privacy`."""
