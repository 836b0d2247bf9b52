"""The ledger: its file, its charges, and the detection of other ledgers and corpora of the same people."""
