"""A second budget, in another data folder or under another name of the file, is told of when it is registered."""

import shutil
from functools import partial

import pytest
from typer.testing import CliRunner

from dp_assets.cli import app
from dp_assets.privacy.labels import Zone
from resources.ledger.ledger_resource import Ledger
from tests.cli_pipeline import CliPipeline


def test_registering_the_same_source_in_a_second_folder_warns(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "warning" not in CliRunner().invoke(app, ["register"]).stderr
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(pipeline.folder / "second"))
    second = CliRunner().invoke(app, ["register"])
    assert second.exit_code == 0
    assert f"the data folder {pipeline.home} has a ledger for this source too" in second.stderr


def test_a_source_whose_ledger_is_gone_gets_no_new_budget_until_the_owner_says_so(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = partial(CliRunner().invoke, app)
    assert register(["register"]).exit_code == 0
    pipeline.home.rename(pipeline.folder / "moved")
    for home in (pipeline.home, pipeline.folder / "new"):
        monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(home))
        refused = register(["register"])
        assert refused.exit_code == 1
        assert f"the data folder {pipeline.home} had another ledger for this source, which is gone" in refused.stderr
        assert not Ledger(private_root=str(home / Zone.PRIVATE)).state().registrations
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(pipeline.folder / "moved"))
    moved = register(["register"])
    assert (moved.exit_code, "gone" in moved.stderr) == (0, False)
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(pipeline.folder / "third"))
    shutil.rmtree(pipeline.folder / "moved")
    meant = register(["register", "--yes"])
    assert meant.exit_code == 0
    assert f"the data folder {pipeline.folder / 'moved'} had another ledger for this source" in meant.stderr
    assert "which is gone" in register(["register"]).stderr


def test_registering_a_renamed_file_says_that_its_budget_does_not_count_the_other(pipeline: CliPipeline) -> None:
    assert "other corpora" not in pipeline.command("register").stderr
    pipeline.corpus_file.rename(pipeline.folder / "renamed.parquet")
    profile = pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(profile.replace("corpus.parquet", "renamed.parquet"))
    second = pipeline.command("register")
    assert second.returncode == 0
    assert "other corpora are registered in this data folder" in second.stderr
