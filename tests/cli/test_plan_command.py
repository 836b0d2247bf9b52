"""`dp-instructions plan`: what it says beforehand, and that it says so without a corpus, a model or a ledger."""

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
from tests.cli.households import household_of
from tests.household import Household
from tests.tiny_pipeline import OVERRIDES, tiny_profile, write_corpus

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


def test_it_states_every_constant_and_spends_writes_and_reads_nothing(household: Household) -> None:
    (household.folder / "corpus.parquet").unlink()
    levels = planned("eps-8", "eps-2.86")["levels"]
    assert [level["level"] for level in levels] == ["eps-8", "eps-2.86"]
    assert all(0 < level["epsilon"] <= level["target_epsilon"] for level in levels)
    assert levels[0]["dpsgd"]["steps"] == OVERRIDES["generator"]["steps"]
    assert levels[0]["dpsgd"]["noise_multiplier"] < levels[1]["dpsgd"]["noise_multiplier"]
    assert not household.home.exists()


def test_without_the_model_the_size_of_the_adapter_is_unknown_and_it_says_why(household: Household) -> None:
    assert planned()["num_parameters"] is None
    result = invoke()
    assert result.exit_code == 0
    assert "size unknown" in result.stdout
    assert "language_model is" in result.stdout


def test_levels_that_exceed_the_budget_together_are_named(household: Household) -> None:
    both = planned("eps-8", "eps-2.86")
    assert both["joint_epsilon"] > both["budget_epsilon"] == 8
    assert any("budget" in line for line in both["advice"])


def test_stating_a_size_brings_suggestions_and_says_when_it_is_too_small(household: Household) -> None:
    assert planned()["suggestions"] == []
    large, small = planned("--units", "5000"), planned("--units", "30")
    assert large["num_units"] == 4000  # four fifths of them train
    assert large["suggestions"][0]["too_small"] == []
    assert small["suggestions"][0]["too_small"]
    shown = invoke("--units", "30")
    assert shown.exit_code == 0
    assert "too small" in shown.stdout


@pytest.mark.parametrize("arguments", [("--units", "0"), ("--units", "many"), ("eps-many",)])
def test_wrong_usage_ends_with_2(household: Household, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


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


def test_an_adapter_that_fits_no_layer_is_an_unknown_size(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with household_of(tmp_path, tiny_model_folder, monkeypatch) as household:
        text = household.profile_file.read_text()
        household.profile_file.write_text(text.replace('["q_proj", "v_proj"]', '["nothing"]', 1))
        assert planned()["num_parameters"] is None


def test_the_speed_here_is_measured_on_public_rows_of_the_greatest_length(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus is away, so that nothing of it can be timed."""
    with household_of(tmp_path, tiny_model_folder, monkeypatch) as household:
        (household.folder / "corpus.parquet").unlink()
        timed = planned("--time")
        assert "tokens a second" in invoke("--time").stdout
    assert timed["tokens_per_second"] > 0
    assert 0 < timed["levels"][0]["hours"] < 1
    profile = tiny(tmp_path, tiny_model_folder)
    speed = measure_speed(profile)
    assert speed.tokens_a_row > profile.generator.max_tokens
    one, two = (speed.seconds(steps=steps, expected_batch=16) for steps in (1, 2))
    assert two == pytest.approx(2 * one) == 2 * 16 * speed.tokens_a_row / speed.tokens_per_second
