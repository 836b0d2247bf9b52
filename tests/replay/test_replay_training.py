"""Along whole trainings on neighboring corpora, each step's sum moves by the newcomer's share, and nothing else does.

What is compared, and how randomness and outputs are replayed, is said in `training`.

Slack. A unit is computed in a shape that follows from the unit alone, so that everybody else's shares are the same to
the last bit, and a sum changes by the newcomer's share up to the rounding of float64 sums: below 1e-14 of C, for texts
that differ and for a crowd that writes one text, in float32 and with a bfloat16 base. Only where memory cuts a
micro-batch on one side is a share computed in another shape; it then moves by up to 1e-6 of C.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoTokenizer

from dp_assets.dpsgd.packing import TokenRow
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.privacy.units import PrivacyUnit
from resources.models.loaders import LanguageModel
from tests.generation.tiny_lora import lora_model
from tests.replay import checks
from tests.replay.neighbors import CASES, LENGTHS, token_rows
from tests.replay.training import C, Pair, total

BUDGETS = (1, 48, 128, 512, 2_048)  # tokens a micro-batch: from each unit alone to everybody at once
SLACK_OF_ONE = 1e-13  # what a share may move with its batch, as a part of C


@pytest.fixture
def pair(tmp_path: Path, tiny_model_folder: Path, request: pytest.FixtureRequest) -> Pair:
    return Pair(tmp_path, tiny_model_folder, *getattr(request, "param", (PrivacyUnit.USER, "enormous texts")))


@pytest.mark.parametrize("pair", CASES, ids=str, indirect=True)
def test_each_step_moves_by_the_newcomers_share_and_both_runs_look_alike(pair: Pair) -> None:
    recording = pair.recording()
    replay = pair.replay(recording)
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, replay)
    checks.both_runs_look_alike(recording, replay)


@pytest.mark.parametrize("budget", BUDGETS)
def test_whatever_the_split_into_micro_batches(pair: Pair, budget: int) -> None:
    recording = pair.recording(tokens_per_micro_batch=budget)
    replay = pair.replay(recording, tokens_per_micro_batch=budget)
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, replay)


@pytest.mark.parametrize(("budget", "other"), [(1, 512), (512, 1), (128, 2_048)])
def test_and_if_memory_cuts_them_otherwise_on_one_side(pair: Pair, budget: int, other: int) -> None:
    recording = pair.recording(tokens_per_micro_batch=budget)
    replay = pair.replay(recording, tokens_per_micro_batch=other)
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, replay, slack=checks.SLACK_OF_ANOTHER_CUT)


def test_with_gradient_checkpointing_on_one_side_only(pair: Pair) -> None:
    recording = pair.recording()
    replay = pair.replay(recording, checkpointing=True)
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, replay)
    checks.both_runs_look_alike(recording, replay)


@pytest.mark.parametrize("pair", CASES, ids=str, indirect=True)
def test_a_unit_that_gives_all_its_rows_moves_the_sum_by_its_one_share(pair: Pair) -> None:
    checks.the_sum_of_all_rows_moves_by_one_share(pair, budget=512)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("pair", [(PrivacyUnit.USER, "rows of very different lengths")], ids=str, indirect=True)
def test_and_that_whatever_the_split(pair: Pair, budget: int) -> None:
    checks.the_sum_of_all_rows_moves_by_one_share(pair, budget=budget)


def test_the_cases_hold_clipped_and_unclipped_units(pair: Pair) -> None:
    evidence = pair.recording().evidence
    assert evidence is not None
    assert all(0 < step["num_clipped"] < step["num_units"] for step in evidence.restricted["clipping"])


def one_row(units: Mapping[str, Sequence[TokenRow]]) -> dict[str, Sequence[TokenRow]]:
    return {unit_id: rows[:1] for unit_id, rows in units.items()}


@pytest.mark.slow
@pytest.mark.parametrize("budget", [128, 2_048])
def test_the_slack_of_256_units_stays_below_the_margin(tmp_path: Path, tiny_model_folder: Path, budget: int) -> None:
    pair = Pair(tmp_path, tiny_model_folder, PrivacyUnit.USER, "enormous texts", num_users=255)
    model, joined = pair.model(), one_row(pair.joined)
    change = total(model, joined, budget=budget) - total(model, one_row(pair.without), budget=budget)
    share = total(model, {"newcomer": joined[str(pair.newcomer)]}, budget=budget)
    assert len(pair.without) == 256
    assert float(change.norm()) <= C
    assert float((change - share).norm()) <= checks.SLACK * C


@pytest.mark.slow
def test_so_does_the_slack_of_256_units_that_all_write_one_text(pair: Pair) -> None:
    text = next(iter(pair.without.values()))[:1]
    crowd, joined = {f"unit {n}": text for n in range(256)}, {"newcomer": pair.joined[str(pair.newcomer)]}
    model, at_once = pair.model(), 2_048
    change = total(model, {**crowd, **joined}, budget=at_once) - total(model, crowd, budget=at_once)
    slack = change - total(model, joined, budget=at_once)
    assert float(change.norm()) <= C
    assert float(slack.norm()) <= checks.SLACK * C


def moved_share(model: nn.Module, row: TokenRow, companion: TokenRow, *, clip_norm: float, copies: int = 4) -> float:
    """By how much the share of `row` moves, as a part of the clip norm, when it shares a micro-batch with others.

    The companion comes out of the same micro-batch in both sums, so that what is left is what `row` gives there.
    """
    crowd = {f"copy {number}": [row] for number in range(copies)}
    alone, at_once = {"alone": [row]}, 256  # more than all their tokens: where bfloat16 is emulated, places are dear
    assert copies * len(row) + len(companion) <= at_once
    lonely = total(model, alone, budget=at_once, clip_norm=clip_norm)
    companion_alone = total(model, {"companion": [companion]}, budget=at_once, clip_norm=clip_norm)
    together = total(model, {**crowd, "companion": [companion]}, budget=at_once, clip_norm=clip_norm)
    return float(((together - companion_alone) / copies - lonely).norm()) / clip_norm


def rows_of(texts: Sequence[str], tokenizer: Any) -> list[TokenRow]:
    table = pl.DataFrame({"unit_id": list(texts), "text": list(texts)})
    return [rows[0] for rows in token_rows(table, tokenizer).values()]


def moved_most(model: nn.Module, tokenizer: Any, *, clip_norm: float) -> float:
    *short, longest = rows_of(LENGTHS[2:], tokenizer)
    return max(moved_share(model, row, longest, clip_norm=clip_norm) for row in short)


def test_one_units_share_does_not_move_with_the_batch_around_it(tiny_model_folder: Path) -> None:
    model, tokenizer = lora_model(tiny_model_folder), AutoTokenizer.from_pretrained(tiny_model_folder)
    assert moved_most(model, tokenizer, clip_norm=0.05) <= SLACK_OF_ONE


@pytest.mark.slow
@pytest.mark.packaged
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nor_does_it_on_the_packaged_model_in_either_precision(tmp_path: Path, dtype: str) -> None:
    base, tokenizer = LanguageModel(device="cpu", cache_root=str(tmp_path)).load(dtype=dtype)
    assert moved_most(last_blocks_adapted(base), tokenizer, clip_norm=0.02) <= SLACK_OF_ONE


def last_blocks_adapted(base: Any) -> PeftModel:
    """The demo's adapter, away from the start where one of its factors is zero."""
    projections = ["q_proj", "v_proj"]
    model = new_adapter_model(base, rank=2, alpha=4, target_modules=projections, layers=range(22, 30), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.arange(parameter.numel()).cos().mul(0.03).view(parameter.shape))
    return model
