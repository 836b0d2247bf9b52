"""A second data folder for the same source is told of when it is registered."""

import pytest
from typer.testing import CliRunner

from dp_assets.cli import app
from tests.household import Household


def test_registering_the_same_source_in_a_second_folder_warns(
    household: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "warning" not in CliRunner().invoke(app, ["register"]).stderr
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(household.folder / "second"))
    second = CliRunner().invoke(app, ["register"])
    assert second.exit_code == 0
    assert f"the data folder {household.home} has a ledger for this source too" in second.stderr
