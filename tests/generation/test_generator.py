"""What can be wrong with the model is found before anything is charged, and looking leaves the model as it was."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoConfig, AutoModelForCausalLM

from dp_assets.dpsgd.packing import RowsInteract, require_rows_apart
from dp_assets.dpsgd.sensitivity_probe import RoundingTooCoarse
from dp_assets.generation.fitness import UnfitModel
from dp_assets.generation.generator import require_trainable
from dp_assets.generation.settings import GeneratorSettings
from resources.models.loaders import LanguageModel
from tests.generation.tiny_lora import round_by_position
from tests.privacy.plans import small_plan
from tests.test_planted_differences import Plant, average_over_micro_batches, carry_a_unit_into_the_next_micro_batch

SETTINGS = GeneratorSettings(
    prompt="user_turn",
    rank=2,
    alpha=4,
    target_modules=("q_proj", "v_proj"),
    max_tokens=40,
    loss_normaliser=16.0,
    tokens_per_micro_batch=64,
    learning_rate=1e-3,
    sampling_probability=0.25,
    expected_batch_size=16,
    steps=4,
    spare_steps=2,
    l2_clip_norm=0.5,
)
ROUNDS_WITH_MANY_ROWS = 3e-8  # with the few rows of a short micro-batch it can still be allowed for


def loaded(folder: Path, dtype: str) -> Any:
    return LanguageModel(model=str(folder), device="cpu", dtype=dtype, cache_root=str(folder)).load()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trainable_model_is_left_without_adapter(tiny_model_folder: Path, dtype: str) -> None:
    model, tokenizer = loaded(tiny_model_folder, dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    require_trainable(model, tokenizer, small_plan(), SETTINGS)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_type_in_which_shares_round_too_coarsely_is_refused_beforehand(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_by_position(monkeypatch, 1e-3)
    with pytest.raises(RoundingTooCoarse, match=r"generator\.dtype"):
        require_trainable(*loaded(tiny_model_folder, "bfloat16"), small_plan(), SETTINGS)


@pytest.mark.parametrize(("delta", "is_refused"), [(1e-5, True), (1e-3, False)])
def test_the_slack_that_is_refused_beforehand_is_that_of_the_units_which_delta_allows_for(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, delta: float, is_refused: bool
) -> None:
    """The expected batch of 16 units would allow for it under either delta."""
    round_by_position(monkeypatch, 5e-7)
    verdict = pytest.raises(RoundingTooCoarse) if is_refused else nullcontext()
    with verdict:
        plan = replace(small_plan(), delta=delta)
        require_trainable(*loaded(tiny_model_folder, "float32"), plan, SETTINGS)


@pytest.mark.parametrize(("rank", "is_refused"), [(4, False), (5, True)])
def test_an_adapter_whose_rounding_depends_on_a_micro_batch_is_tried_beforehand_with_those_of_the_run(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, rank: int, is_refused: bool
) -> None:
    """Only a rank that is no multiple of 4 rounds by position, so only for it does the number of rows matter."""
    round_by_position(monkeypatch, ROUNDS_WITH_MANY_ROWS)
    verdict = pytest.raises(RoundingTooCoarse, match="ledger void") if is_refused else nullcontext()
    settings = SETTINGS.model_copy(update={"rank": rank, "tokens_per_micro_batch": 1024})
    with verdict:
        require_trainable(*loaded(tiny_model_folder, "float32"), small_plan(), settings)


@pytest.mark.parametrize("dropout", [0.3, 0.002])
def test_a_tokenizer_that_draws_how_it_cuts_a_text_is_refused_beforehand(
    tiny_model_folder: Path, tmp_path: Path, dropout: float
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["dropout"] = dropout
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnfitModel, match=r"^language_model .* dropout"):
        require_trainable(*loaded(folder, "float32"), small_plan(), SETTINGS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("plant", [average_over_micro_batches, carry_a_unit_into_the_next_micro_batch])
def test_sums_that_do_not_add_up_over_micro_batches_are_refused_beforehand(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant, dtype: str
) -> None:
    plant(monkeypatch)
    settings = SETTINGS.model_copy(update={"tokens_per_micro_batch": 512})
    with pytest.raises(UnfitModel, match="do not add up"):
        require_trainable(*loaded(tiny_model_folder, dtype), small_plan(), settings)


def test_a_model_that_takes_no_row_as_long_as_the_longest_is_refused_beforehand() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    config = AutoConfig.for_model("mistral", num_attention_heads=4, num_key_value_heads=2, sliding_window=20, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    require_rows_apart(model, longest=20)
    with pytest.raises(RowsInteract, match="window"):
        require_rows_apart(model, longest=21)
