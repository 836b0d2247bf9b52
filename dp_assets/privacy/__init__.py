"""Everything a privacy reviewer reads: units, events, accounting, plan, mechanisms, ledger, statement. Start at README.md."""
