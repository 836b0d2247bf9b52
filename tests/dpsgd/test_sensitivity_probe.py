"""The probe tells a float32 engine, whose shares add up, from one in which rows interact, and leaves no trace."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dp_assets.dpsgd import clipping
from dp_assets.dpsgd.clipping import Clipping, GradientEngine, adapter_parameters
from dp_assets.dpsgd.sensitivity_probe import PROBE_UNITS, SMALL, ProbeResult, RoundingTooCoarse, probe_sensitivity
from dp_assets.privacy.sampling_and_noise import ROUNDING_MARGIN
from tests.generation.tiny_lora import lora_model, round_by_position

C, EXPECTED = 0.3, 4096


def probe(model: nn.Module, *, budget: int = 256) -> ProbeResult:
    engine = GradientEngine(model, Clipping(C, loss_normalizer=16.0, tokens_per_micro_batch=budget))
    return probe_sensitivity(engine, largest_batch=EXPECTED, longest_row=0)


@pytest.fixture
def model(tiny_model_folder: Path) -> nn.Module:
    return lora_model(tiny_model_folder)


def in_bfloat16(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if "lora_" in name else parameter.data.bfloat16()
    return model


@pytest.mark.parametrize("budget", [1, 24, 256])
@pytest.mark.parametrize("precision", [lambda model: model, in_bfloat16], ids=["float32", "bfloat16"])
def test_shares_add_up_to_the_last_bit_and_none_exceeds_the_clip_norm(
    model: nn.Module, precision: Callable[[nn.Module], nn.Module], budget: int
) -> None:
    found = probe(precision(model), budget=budget)
    assert found.rounding_slack < 1e-14
    assert 0.99 < found.largest_share <= 1


@pytest.mark.parametrize(("slack", "verdict"), [(1e-8, nullcontext()), (1e-5, pytest.raises(RoundingTooCoarse))])
def test_kernels_that_round_by_position_are_refused_if_a_batch_of_aligned_units_could_exceed_the_margin(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, slack: float, verdict: AbstractContextManager[Any]
) -> None:
    round_by_position(monkeypatch, slack)
    with verdict:
        probe(model)


def in_tf32(model: nn.Module) -> nn.Module:
    torch.set_float32_matmul_precision("high")
    return model


@pytest.fixture
def _float32_as_before() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_float32_as_before")
@pytest.mark.parametrize("precision", [in_bfloat16, in_tf32])
def test_below_float32_shares_that_do_not_add_up_to_the_last_bit_are_refused_however_little_they_move(
    model: nn.Module, precision: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where kernels round by company, a coarse value flips now and then by its whole unit; few rows may miss it."""
    round_by_position(monkeypatch, 1e-8)
    with pytest.raises(RoundingTooCoarse, match="float32"):
        probe(precision(model))


def test_the_probe_of_any_run_spans_three_micro_batches_of_which_no_unit_fills_more_than_one() -> None:
    batches = clipping.micro_batches(PROBE_UNITS * 2, SMALL)
    assert len(batches) == 3
    assert {batch.num_tokens for batch in batches} == {SMALL}


def test_both_factors_of_a_fresh_adapter_take_part(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if "lora_B" in name:
                parameter.zero_()
    add_rows = clipping._add_rows

    def mix_a(gradients: Any, *args: Any) -> Any:
        """The first factor's gradients, which are zero on a fresh adapter, lean on who else is there."""
        mixed = {n: g * int(g.flatten(1).any(1).sum()) if "lora_A" in n else g for n, g in gradients.items()}
        return add_rows(mixed, *args)

    monkeypatch.setattr(clipping, "_add_rows", mix_a)
    assert probe(model).rounding_slack > ROUNDING_MARGIN


def test_the_adapter_is_put_back_bit_by_bit_even_after_an_error(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probe(model)
    monkeypatch.setattr(clipping, "_clip", None)
    with pytest.raises(TypeError):
        probe(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_probe_does_not_depend_on_the_state_of_the_adapter(tiny_model_folder: Path, model: nn.Module) -> None:
    other = lora_model(tiny_model_folder)
    with torch.no_grad():
        for parameter in adapter_parameters(other).values():
            parameter.mul_(3)
    assert probe(model) == probe(other)
