"""Along whole trainings on neighbouring corpora, each step's sum moves by the newcomer's share, and nothing else does.

What is compared, and how randomness and outputs are replayed, is said in `training`.

Slack. A sum changes by the newcomer's share up to rounding: everybody else's shares come out of micro-batches that the
newcomer made wider or cut elsewhere. Measured on the tiny model with texts that differ, as a part of C: 5e-7 for 64
units, 1.4e-6 for 256, 2.4e-6 for 1,024. It grows with the square root of the batch, like a random walk, since the
roundings of different units point anywhere. Where all units write one text their roundings align, and the slack grows
with their number: 1.3e-4 for 256 of them in one micro-batch that a newcomer makes twice as wide. The engine clips below
its norm by a margin of 1e-3, which holds all of this. (Sums in float32 would add a rounding that grows with their own
length: 1.8e-5 for 256 units, 1.4e-4 for 1,024, and one unit has moved such a sum by more than a margin of 1e-5 allows.
So the engine adds in float64.)

One unit's share moves with the batch around it, as a part of C: in float32 by 4e-7 on the tiny model and 2.5e-6 on the
packaged one (last eight blocks); with a bfloat16 base by up to 0.3% and 6%. At 6%, 256 different units add a slack of
about C, so that one unit may move the sum by about 1.4 C instead of C; hence `dp_generator` enforces float32.
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

from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.per_unit import ROUNDING_MARGIN, TokenRow
from dp_assets.privacy.units import PrivacyUnit
from resources.models import LanguageModel
from tests.generation.tiny_lora import lora_model
from tests.replay import checks
from tests.replay.neighbours import CASES, LENGTHS, token_rows
from tests.replay.training import C, Pair, total

BUDGETS = (1, 48, 128, 512, 1_000_000)  # tokens a micro-batch: from each unit alone to everybody at once
SLACK_OF_ONE = 5e-6  # what a share may move with its batch in float32, as a part of C


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


@pytest.mark.parametrize(("budget", "other"), [(1, 512), (512, 1), (128, 1_000_000)])
def test_and_if_memory_cuts_them_otherwise_on_one_side(pair: Pair, budget: int, other: int) -> None:
    recording = pair.recording(tokens_per_micro_batch=budget)
    replay = pair.replay(recording, tokens_per_micro_batch=other)
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, replay)


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
@pytest.mark.parametrize("budget", [128, 1_000_000])
def test_the_slack_of_256_units_stays_below_the_margin(tmp_path: Path, tiny_model_folder: Path, budget: int) -> None:
    pair = Pair(tmp_path, tiny_model_folder, PrivacyUnit.USER, "enormous texts", num_users=255)
    model, joined = pair.model(), one_row(pair.joined)
    change = total(model, joined, budget=budget) - total(model, one_row(pair.without), budget=budget)
    share = total(model, {"newcomer": joined[str(pair.newcomer)]}, budget=budget)
    assert len(pair.without) == 256
    assert float(change.norm()) <= C
    assert float((change - share).norm()) <= checks.SLACK * C < ROUNDING_MARGIN * C


@pytest.mark.slow
def test_so_does_the_slack_of_256_units_that_all_write_one_text(pair: Pair) -> None:
    text = next(iter(pair.without.values()))[:1]
    crowd, joined = {f"unit {n}": text for n in range(256)}, {"newcomer": pair.joined[str(pair.newcomer)]}
    model, at_once = pair.model(), 1_000_000
    change = total(model, {**crowd, **joined}, budget=at_once) - total(model, crowd, budget=at_once)
    slack = change - total(model, joined, budget=at_once)
    assert float(change.norm()) <= C
    assert float(slack.norm()) <= ROUNDING_MARGIN * C


def moved_share(model: nn.Module, row: TokenRow, companion: TokenRow, *, clip_norm: float, copies: int = 4) -> float:
    """By how much the share of `row` moves, as a part of the clip norm, when it shares a micro-batch with others.

    The companion comes out of the same micro-batch in both sums, so that what is left is what `row` gives there.
    """
    crowd = {f"copy {number}": [row] for number in range(copies)}
    alone, at_once = {"alone": [row]}, 1_000_000
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


def test_one_units_share_hardly_moves_with_the_batch_around_it(tiny_model_folder: Path) -> None:
    model, tokenizer = lora_model(tiny_model_folder), AutoTokenizer.from_pretrained(tiny_model_folder)
    assert moved_most(model, tokenizer, clip_norm=0.05) <= SLACK_OF_ONE


@pytest.mark.slow
@pytest.mark.packaged
def test_nor_does_it_on_the_packaged_model_but_on_its_bfloat16_form_by_percents(tmp_path: Path) -> None:
    language_model = LanguageModel(device="cpu", cache_root=str(tmp_path))
    moved = {}
    for dtype in ("float32", "bfloat16"):
        base, tokenizer = language_model.load(dtype=dtype)
        moved[dtype] = moved_most(last_blocks_adapted(base), tokenizer, clip_norm=0.02)
    assert moved["float32"] <= SLACK_OF_ONE
    assert ROUNDING_MARGIN < moved["bfloat16"] < 0.15


def last_blocks_adapted(base: Any) -> PeftModel:
    """The demo's adapter, away from the start where one of its factors is zero."""
    projections = ["q_proj", "v_proj"]
    model = new_adapter_model(base, rank=2, alpha=4, target_modules=projections, layers=range(22, 30), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.arange(parameter.numel()).cos().mul(0.03).view(parameter.shape))
    return model
