"""Imports go one way: the contracts of `pyproject.toml` hold."""

import subprocess
import sys
from pathlib import Path


def test_the_import_contracts_hold() -> None:
    lint = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    linted = subprocess.run(lint, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    assert " 0 broken" in linted.stdout
