"""The ledger: its file, its gate, and who else spends on the same people."""
