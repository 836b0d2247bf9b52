"""Corpora that share users get one budget, and whether they do is told to the owner alone."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from dp_assets.assets.real_instructions import real_instructions
from dp_assets.cli import app
from dp_assets.pipeline import overlap
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import log_file
from resources.storage.zones import HOME_VARIABLE
from tests.tiny_pipeline import register as register_profile
from tests.tiny_pipeline import tiny_profile, tiny_resources, write_corpus


class Copies:
    """A tiny corpus that is prepared, and other files that are registered beside it in the same data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "data"
        self.rows = pl.read_parquet(write_corpus(folder / "corpus.parquet"))
        self.ledger = Ledger(private_root=str(self.home / "private"))
        self.first, result = self.prepare("corpus.parquet")
        assert result.success

    def profile(self, name: str, **corpus: Any) -> Profile:
        return tiny_profile(self.folder / name, Path("no model"), budget_epsilon=20.0, **corpus)

    def prepare(self, name: str, **corpus: Any) -> tuple[str, dg.ExecuteInProcessResult]:
        profile = self.profile(name, **corpus)
        resources = tiny_resources(profile, self.home)
        corpus_id = register_profile(self.ledger, profile).corpus_id
        return corpus_id, dg.materialize([real_instructions], resources=resources, raise_on_error=False)

    @property
    def private_log(self) -> str:
        return log_file(self.home / "private").read_text()


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "data"))
    return Copies(tmp_path)


@pytest.mark.parametrize("corpus", [{}, {"train_fraction": 0.5}])
def test_the_same_users_under_a_new_file_name_with_a_blank_row_get_no_second_budget(
    copies: Copies, corpus: dict[str, Any]
) -> None:
    blank = pl.DataFrame({"prompt": ["  "], "user": ["nobody"]})
    pl.concat([copies.rows, blank]).write_parquet(copies.folder / "copy.parquet")
    _, result = copies.prepare("copy.parquet", **corpus)
    assert not result.success
    assert "registered already" in copies.private_log
    shown = [event.message for event in result.all_events]
    assert not any("registered already" in (message or "") for message in shown)


@pytest.mark.parametrize("shared", [0, 30])
def test_whether_corpora_share_users_is_told_to_the_owner_and_to_nobody_else(
    copies: Copies, shared: int, capfd: pytest.CaptureFixture[str]
) -> None:
    old = copies.rows.filter(pl.col("user").is_in([f"user-{number}" for number in range(shared)]))
    new = pl.DataFrame(
        {"prompt": [f"what is number {n} for?" for n in range(40)], "user": [f"new-{n}" for n in range(40)]}
    )
    pl.concat([old, new]).write_parquet(copies.folder / "other.parquet")
    second, result = copies.prepare("other.parquet")
    assert result.success
    assert ("of the units of corpus" in copies.private_log) == (shared > 0)
    public = "".join(capfd.readouterr())
    assert overlap.OTHER_CORPORA in public
    assert "of the units of" not in public
    told = json.loads(CliRunner().invoke(app, ["corpus", "overlaps", "--json"]).stdout)["corpora"]
    assert (copies.first in told[second]) == (shared > 0)


def test_the_command_declares_an_overlap_and_the_ledger_shows_it(copies: Copies) -> None:
    copies.rows.head(9).write_parquet(copies.folder / "other.parquet")
    second = register_profile(copies.ledger, copies.profile("other.parquet")).corpus_id
    asked = ("corpus", "declare-overlap", copies.first, second)
    declared = CliRunner().invoke(app, [*asked, "--reason", "the same people", "--json"])
    assert json.loads(declared.stdout) == {"corpora": [copies.first, second]}
    shown = json.loads(CliRunner().invoke(app, ["ledger", "show", "--json"]).stdout)
    assert shown["overlaps"] == [[copies.first, second]]
    refused = CliRunner().invoke(app, [*asked[:3], "unknown"])
    assert refused.exit_code == 1
