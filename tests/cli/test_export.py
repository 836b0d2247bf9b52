"""`export` before there is anything to export: each refusal names the remedy, and the target stays as it was."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import PARTITION


def export(target: Path, *arguments: str, partition: str = PARTITION) -> Result:
    return CliRunner().invoke(app, ["export", partition, "--to", str(target), *arguments])


def test_an_unregistered_corpus_has_nothing_to_export(pipeline: CliPipeline, tmp_path: Path) -> None:
    refused = export(tmp_path / "out")
    assert refused.exit_code == 1
    assert "dp-instructions register" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_before_a_run_everything_is_missing(pipeline: CliPipeline, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["register"])
    refused = export(tmp_path / "out", "--only", "pool")
    assert refused.exit_code == 1
    assert f"has no synthetic_pool, privacy_statement; run `dp-instructions run '{PARTITION}'`" in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "partition", "code", "said"),
    [
        (["--only", "tables"], PARTITION, 1, "choose from filtered"),
        ([], "everyone|eps-8", 2, "'everyone|eps-8' is none of all|eps-1"),
        ([], "all|no-dp", 1, "no guarantee"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    pipeline: CliPipeline, tmp_path: Path, arguments: list[str], partition: str, code: int, said: str
) -> None:
    CliRunner().invoke(app, ["register"])
    refused = export(tmp_path / "out", *arguments, partition=partition)
    assert refused.exit_code == code
    assert said in refused.stderr


def test_a_folder_in_use_is_kept(pipeline: CliPipeline, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    refused = export(tmp_path / "mine")
    assert refused.exit_code == 1
    assert "neither empty nor an earlier export" in " ".join(refused.stderr.split())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
