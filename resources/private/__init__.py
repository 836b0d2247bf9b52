"""Private steps, which keep private rows in the private zone while they are read, and the erasure of units."""
