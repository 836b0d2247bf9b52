"""The household of this package's tests, and a released zone without a ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.storage.zones import HOME_VARIABLE
from tests.cli.households import household_of
from tests.cli.released_statements import released_zone
from tests.household import Household


@pytest.fixture
def household(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Household]:
    """One that needs no model, because the graph does not run."""
    with household_of(tmp_path, Path("no model"), monkeypatch) as household:
        yield household


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `artifacts` of a released zone: two artifacts and the statement made from them. There is no ledger."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "no home"))
    return released_zone(tmp_path)
