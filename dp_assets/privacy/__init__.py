"""Everything a privacy reviewer reads. Start at README.md."""
