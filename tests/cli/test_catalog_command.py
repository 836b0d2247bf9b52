"""The catalog after a run: rebuilt for its readers, and never a reason to fail."""

from pathlib import Path

import pytest

from dp_assets.cli.catalog import refresh
from resources.storage.catalog import catalog_file
from tests.household import Household


def test_refreshing_makes_the_catalog(household: Household) -> None:
    refresh()
    assert catalog_file(household.home).is_file()


def test_a_catalog_that_cannot_be_rebuilt_is_told_and_nothing_more(
    household: Household, capsys: pytest.CaptureFixture[str]
) -> None:
    report = household.home / "released/artifacts/quality_report/all/eps-8/document.json"
    report.parent.mkdir(parents=True)
    report.write_text("{")
    refresh()
    assert "the catalog was not rebuilt" in " ".join(capsys.readouterr().err.split())
    assert not Path(catalog_file(household.home)).exists()
