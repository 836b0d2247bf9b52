"""`dp-instructions handoff` before there is anything to hand out; the rest is in `tests/test_human_annotation.py`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import PARTITION


def export(folder: Path, partition: str, kind: str = "instructions") -> Result:
    return CliRunner().invoke(app, ["handoff", "export", kind, "--partition", partition, "--to", str(folder)])


@pytest.fixture(autouse=True)
def _registered(pipeline: CliPipeline) -> None:
    assert CliRunner().invoke(app, ["register"]).exit_code == 0


@pytest.mark.parametrize("kind", ["instructions", "pairs"])
def test_the_level_without_noise_is_not_handed_out(tmp_path: Path, kind: str) -> None:
    result = export(tmp_path / "out", "all|no-dp", kind)
    assert result.exit_code == 1
    assert "lies in the private zone" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_partition_is_wrong_usage_that_names_the_known_ones(tmp_path: Path) -> None:
    result = export(tmp_path, "everyone|eps-8")
    assert result.exit_code == 2
    assert PARTITION in result.stderr


@pytest.mark.parametrize(
    ("kind", "missing"), [("instructions", "filtered_instructions"), ("pairs", "annotated_instructions and sft_model")]
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path, kind: str, missing: str) -> None:
    result = export(tmp_path / "out", PARTITION, kind)
    assert result.exit_code == 1
    assert f"{missing} of {PARTITION} are missing or out of date; run `dp-instructions run" in result.stderr
    assert not (tmp_path / "out").exists()
