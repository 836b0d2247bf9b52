"""What only the model can tell a planner: the adapter's size without weights, and the speed on public rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._adapter import measure_speed, num_adapter_parameters
from dp_assets.dpsgd.clipping import adapter_parameters
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.settings.profile import Profile
from resources.models.loaders import LanguageModel
from tests.cli.pipelines import pipeline_of
from tests.tiny_pipeline import tiny_profile, write_corpus

LORA_PARAMETERS = 2 * 2 * (32 + 32) + 2 * 2 * (32 + 16)
"""Two blocks, rank 2: a query projection from 32 to 32, and a value projection from 32 to 16 features."""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    result = invoke("--json", *arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def tiny(folder: Path, model: Path) -> Profile:
    return tiny_profile(write_corpus(folder / "corpus.parquet"), model)


def test_the_adapters_size_is_that_of_the_trained_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    profile = tiny(tmp_path, tiny_model_folder)
    settings = profile.generator
    loaded, _ = LanguageModel(model=str(tiny_model_folder), device="cpu", cache_root=str(tmp_path)).load()
    trained = new_adapter_model(
        loaded,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        layers=settings.last_layers,
        seed=0,
    )
    counted = sum(parameter.numel() for parameter in adapter_parameters(trained).values())
    assert num_adapter_parameters(profile) == counted == LORA_PARAMETERS


def test_the_speed_here_is_measured_on_public_rows_of_the_greatest_length(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus is away, so that nothing of it can be timed."""
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        (pipeline.folder / "corpus.parquet").unlink()
        timed = planned("--time")
        assert "tokens a second" in invoke("--time").stdout
    assert timed["tokens_per_second"] > 0
    assert 0 < timed["levels"][0]["hours"] < 1
    profile = tiny(tmp_path, tiny_model_folder)
    speed = measure_speed(profile)
    assert speed.tokens_a_row > profile.generator.max_tokens
    one, two = (speed.seconds(steps=steps, expected_batch=16) for steps in (1, 2))
    assert two == pytest.approx(2 * one) == 2 * 16 * speed.tokens_a_row / speed.tokens_per_second
