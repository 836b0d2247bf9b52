"""`dp-instructions plan`: what it says beforehand, and that it says so without a corpus, a model or a ledger."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from tests.cli.pipelines import pipeline_of
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import OVERRIDES


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    result = invoke("--json", *arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_it_states_every_constant_and_spends_writes_and_reads_nothing(pipeline: CliPipeline) -> None:
    (pipeline.folder / "corpus.parquet").unlink()
    levels = planned("eps-8", "eps-2.86")["levels"]
    assert [level["level"] for level in levels] == ["eps-8", "eps-2.86"]
    assert all(0 < level["epsilon"] <= level["target_epsilon"] for level in levels)
    assert levels[0]["dpsgd"]["steps"] == OVERRIDES["generator"]["steps"]
    assert levels[0]["dpsgd"]["noise_multiplier"] < levels[1]["dpsgd"]["noise_multiplier"]
    assert not pipeline.home.exists()


def test_without_the_model_the_size_of_the_adapter_is_unknown_and_it_says_why(pipeline: CliPipeline) -> None:
    assert planned()["num_parameters"] is None
    result = invoke()
    assert result.exit_code == 0
    assert "size unknown" in result.stdout
    assert "language_model is" in result.stdout


def test_levels_that_exceed_the_budget_together_are_named(pipeline: CliPipeline) -> None:
    both = planned("eps-8", "eps-2.86")
    assert both["joint_epsilon"] > both["budget_epsilon"] == 8
    assert any("budget" in line for line in both["advice"])


def test_stating_a_size_brings_suggestions_and_says_when_it_is_too_small(pipeline: CliPipeline) -> None:
    assert planned()["suggestions"] == []
    large, small = planned("--units", "5000"), planned("--units", "30")
    assert large["num_units"] == 4000  # four fifths of them train
    assert large["suggestions"][0]["too_small"] == []
    assert small["suggestions"][0]["too_small"]
    shown = invoke("--units", "30")
    assert shown.exit_code == 0
    assert "too small" in shown.stdout


@pytest.mark.parametrize("arguments", [("--units", "0"), ("--units", "many"), ("eps-many",)])
def test_wrong_usage_ends_with_2(pipeline: CliPipeline, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_an_adapter_that_fits_no_layer_is_an_unknown_size(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        text = pipeline.profile_file.read_text()
        pipeline.profile_file.write_text(text.replace('["q_proj", "v_proj"]', '["nothing"]', 1))
        assert planned()["num_parameters"] is None
