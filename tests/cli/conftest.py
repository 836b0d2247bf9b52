"""The household of this package's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.households import household_of
from tests.household import Household


@pytest.fixture
def household(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Household]:
    """One that needs no model, because the graph does not run."""
    with household_of(tmp_path, Path("no model"), monkeypatch) as household:
        yield household
