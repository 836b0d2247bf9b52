"""The privacy argument as pure code: mechanisms, accounting, plan, evidence, claim, ledger logic and gate.

A reviewer starts at README.md, which also names the files outside this package that the argument needs.
"""
