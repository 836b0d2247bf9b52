"""The one-pass engine equals a loop over units and Opacus, and one unit moves the sum by at most the clip norm."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedConfig

from dp_assets.dpsgd import clipping
from dp_assets.dpsgd.clipping import (
    IGNORED,
    ROUNDING_MARGIN,
    Clipping,
    ClippingEvidence,
    Gradients,
    MicroBatchTooLarge,
    RowsInteract,
    TokenRow,
    adapter_parameters,
    clipped_sum,
    micro_batches,
)
from dp_assets.dpsgd.lora_gradients import UnclippableParameter
from dp_assets.privacy.plan import LEAST_CLIP_NORM
from tests.generation.tiny_lora import ONE_ROW_EACH, PAD, ROWS, SHARED, lora_model

C = 0.3  # between the least and the largest norm of the rows below, so that some units are clipped and some are not
NORMALIZER = 16.0


def engine(
    model: nn.Module, rows: Sequence[TokenRow], unit_ids: Sequence[str], *, l2_clip_norm: float = C, budget: int = 40
) -> tuple[Gradients, ClippingEvidence]:
    return clipped_sum(model, rows, unit_ids, Clipping(l2_clip_norm, NORMALIZER, budget))


def loop_over_units(
    model: nn.Module, rows: Sequence[TokenRow], unit_ids: Sequence[str]
) -> tuple[Gradients, list[float]]:
    """The definition, read literally: one unpadded forward pass a row, one backward pass a unit."""
    parameters = adapter_parameters(model)
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    norms = []
    for unit_id in sorted(set(unit_ids)):
        model.zero_grad()
        for row in (row for row, owner in zip(rows, unit_ids, strict=True) if owner == unit_id):
            logits = model(input_ids=torch.tensor([row.prompt_ids + row.target_ids])).logits[0].log_softmax(-1)
            first = len(row.prompt_ids) - 1
            loss = -sum(logits[first + place, token] for place, token in enumerate(row.target_ids)) / NORMALIZER
            loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in parameters.values()]).norm()))
        for name, parameter in parameters.items():
            total[name] += parameter.grad * min(1.0, C * (1 - ROUNDING_MARGIN) / norms[-1])
    model.zero_grad()
    return total, norms


def flat(gradients: Gradients) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def difference(first: Gradients, second: Gradients) -> float:
    return float((flat(first) - flat(second)).norm())


def assert_same(first: Gradients, second: Gradients) -> None:
    assert difference(first, second) <= 1e-5 * float(flat(second).norm())


@pytest.fixture
def model(tiny_model_folder: Path) -> nn.Module:
    return lora_model(tiny_model_folder)


@pytest.mark.parametrize("budget", [1, 24, 40, 512])
@pytest.mark.parametrize("unit_ids", [ONE_ROW_EACH, SHARED])
def test_the_engine_equals_a_loop_over_units(model: nn.Module, unit_ids: tuple[str, ...], budget: int) -> None:
    total, evidence = engine(model, ROWS, unit_ids, budget=budget)
    expected, norms = loop_over_units(model, ROWS, unit_ids)
    assert_same(total, expected)
    assert evidence.num_clipped == sum(norm > C for norm in norms)
    assert 0 < evidence.num_clipped < evidence.num_units == len(norms)


@pytest.mark.parametrize("rank", [1, 32, 33])
def test_a_matrix_may_be_narrow_wide_or_square(tiny_model_folder: Path, rank: int) -> None:
    model = lora_model(tiny_model_folder, r=rank, target_modules=["q_proj", "k_proj", "down_proj"])
    total, _ = engine(model, ROWS, SHARED)
    expected, _ = loop_over_units(model, ROWS, SHARED)
    assert_same(total, expected)


def test_the_tiny_model_ties_its_embeddings(model: nn.Module) -> None:
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_gradient_checkpointing_changes_nothing(model: nn.Module) -> None:
    plain, _ = engine(model, ROWS, SHARED)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    repeats = count_forwards(model)
    model.train()
    recomputed, _ = engine(model, ROWS, SHARED, budget=512)
    batches = list(micro_batches([[row] for row in ROWS], 512))
    assert sum(repeats) == 2 * len(batches)  # one forward pass, and one more in the backward pass
    assert_same(recomputed, plain)


def count_forwards(model: nn.Module) -> list[int]:
    calls: list[int] = []
    model.get_base_model().model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_the_engine_equals_opacus(tiny_model_folder: Path, model: nn.Module) -> None:
    total, _ = engine(model, ROWS, ONE_ROW_EACH)
    oracle = GradSampleModule(lora_model(tiny_model_folder), loss_reduction="sum").train()
    tokens, attention, labels = padded(ROWS)
    logits = oracle(input_ids=tokens, attention_mask=attention).logits
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / NORMALIZER
    loss.backward()
    samples = {
        name.removeprefix("_module."): parameter.grad_sample
        for name, parameter in oracle.named_parameters()
        if parameter.requires_grad
    }
    norms = torch.cat([sample.flatten(1) for sample in samples.values()], dim=1).norm(dim=1)
    factors = (C * (1 - ROUNDING_MARGIN) / norms).clamp(max=1)
    assert_same(total, {name: torch.einsum("n,noi->oi", factors, sample) for name, sample in samples.items()})


def padded(rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[*row.prompt_ids, *row.target_ids, *[PAD] * (width - len(row))] for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor(
        [[IGNORED] * (len(row.prompt_ids) - 1) + [*row.target_ids] + [IGNORED] * (width - len(row) + 1) for row in rows]
    )
    return tokens, attention, labels


@pytest.mark.parametrize("added", range(len(ROWS)))
@pytest.mark.parametrize("clip_norm", [0.01, C])
def test_one_unit_moves_the_sum_by_at_most_the_clip_norm(model: nn.Module, added: int, clip_norm: float) -> None:
    others = [index for index in range(len(ROWS)) if index != added]
    everyone, _ = engine(model, ROWS, ONE_ROW_EACH, l2_clip_norm=clip_norm)
    without, _ = engine(
        model, [ROWS[i] for i in others], [ONE_ROW_EACH[i] for i in others], l2_clip_norm=clip_norm, budget=24
    )
    assert 0 < difference(everyone, without) <= clip_norm * (1 + 1e-5)


def test_a_unit_with_many_rows_is_clipped_as_a_whole(model: nn.Module) -> None:
    rows = ROWS[1:2] * 5
    together, _ = engine(model, rows, ["a"] * 5)
    apart, _ = engine(model, rows, list(ONE_ROW_EACH[:5]))
    assert float(flat(together).norm()) <= C < float(flat(apart).norm())


def test_a_share_does_not_depend_on_who_else_is_in_the_batch(model: nn.Module) -> None:
    alone, _ = engine(model, ROWS[:1], ["a"])
    among_long, _ = engine(model, ROWS[:2], ["a", "b"], budget=512)
    the_long_one, _ = engine(model, ROWS[1:2], ["b"])
    share = {name: among_long[name] - the_long_one[name] for name in alone}
    assert difference(share, alone) <= 1e-5 * float(flat(alone).norm())


def test_neither_order_nor_names_of_units_matter(model: nn.Module) -> None:
    forwards, _ = engine(model, ROWS, SHARED)
    backwards, _ = engine(model, ROWS[::-1], [f"unit {unit_id}" for unit_id in SHARED[::-1]])
    assert_same(backwards, forwards)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_unit_of_non_finite_gradient_contributes_exactly_zero(model: nn.Module, poison: float) -> None:
    rare = 61  # only in the last row
    untie_and_poison(model, rare, poison)
    total, evidence = engine(model, ROWS, ONE_ROW_EACH, budget=512)
    without, _ = engine(model, ROWS[:5], ONE_ROW_EACH[:5], budget=512)
    assert evidence.num_non_finite == 1
    assert evidence.num_units == 6
    assert_same(total, without)
    only, evidence = engine(model, ROWS[5:], ONE_ROW_EACH[5:])
    assert not flat(only).any()
    assert evidence.norm_quantiles == ()


def test_logits_at_places_without_label_need_not_be_finite() -> None:
    """Places that fill up a chunk of labels get no gradient, whatever row they happen to lie in."""
    model = toy_with_adapter(twice=False, flattened=False)
    base = model.get_base_model()
    base.head.weight.data *= 1e3
    base.base_model.embed.weight.data[9] = 1e37
    row, rest = TokenRow((9, 3), (4, 5, 6)), TokenRow((3,), (4, 5, 6))  # no token of this model looks at another
    assert not model(input_ids=torch.tensor([row.prompt_ids])).logits[0, 0].isfinite().all()
    total, evidence = engine(model, [row], ["a"])
    assert evidence.num_non_finite == 0
    assert_same(total, engine(model, [rest], ["a"])[0])


def untie_and_poison(model: nn.Module, token: int, value: float) -> None:
    """Make the input embedding of one token non-finite; the head keeps its own weights."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.get_input_embeddings().weight.data[token] = value


def test_no_rows_give_zeros_of_every_shape(model: nn.Module) -> None:
    total, evidence = engine(model, [], [])
    assert {name: tensor.shape for name, tensor in total.items()} == {
        name: parameter.shape for name, parameter in adapter_parameters(model).items()
    }
    assert not flat(total).any()
    assert evidence.num_units == 0


def test_evidence_shows_names_and_hides_figures(model: nn.Module) -> None:
    _, evidence = engine(model, ROWS, ONE_ROW_EACH)
    assert evidence.names == tuple(sorted(adapter_parameters(model)))
    constants = f"l2_clip_norm={C}, loss_normalizer={NORMALIZER}"
    assert repr(evidence) == f"ClippingEvidence(names={evidence.names!r}, {constants})"
    assert evidence.restricted["norm_quantiles"] == sorted(evidence.restricted["norm_quantiles"])


def test_the_model_is_left_as_it_was(model: nn.Module) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    engine(model, ROWS, SHARED)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


# Shapes


def lengths_of_lines(units: Sequence[Sequence[TokenRow]], budget: int) -> dict[int, int]:
    """The length of the micro-batch of each unit, by the unit's place."""
    return {units.index(unit): batch.num_tokens for batch in micro_batches(units, budget) for unit in batch.units}


@pytest.mark.parametrize("budget", [1, 40, 256, 512])
def test_the_shape_in_which_a_unit_is_computed_follows_from_the_unit_alone(budget: int) -> None:
    lengths = (1, 7, 8, 9, 30, 64, 65, 100, 129, 255, 1000)
    units = [[TokenRow((1,), tuple(range(length)))] * (1 + index % 3) for index, length in enumerate(lengths)]
    together = lengths_of_lines(units, budget)
    assert len(together) == len(units)
    assert [lengths_of_lines([unit], budget)[0] for unit in units] == [together[index] for index in range(len(units))]
    assert [together[index] for index, unit in enumerate(units)] == [max(budget, sum(map(len, unit))) for unit in units]


def test_micro_batches_are_full_but_for_less_than_a_tenth() -> None:
    lengths = torch.distributions.LogNormal(3.0, 0.7).sample((512,)).clamp(2, 128).int().tolist()
    units = [[TokenRow((1,), (2,) * (length - 1))] for length in lengths]
    batches = list(micro_batches(units, 256))
    assert sum(batch.num_tokens for batch in batches) <= sum(lengths) / 0.9


@pytest.mark.parametrize("budget", [8, 64, 509, 512])
@pytest.mark.parametrize("rank", [2, 8])
def test_a_share_is_the_same_to_the_last_bit_whoever_else_is_in_the_batch(
    tiny_model_folder: Path, rank: int, budget: int
) -> None:
    """Float32 shares would differ by 1e-9 if they were rounded differently; their float64 sum rounds by 1e-17."""
    model = lora_model(tiny_model_folder, r=rank)
    alone = [flat(engine(model, [row], ["u"], budget=budget)[0]) for row in ROWS]
    together = flat(engine(model, ROWS, ONE_ROW_EACH, budget=budget)[0])
    backwards = flat(engine(model, ROWS[::-1], ONE_ROW_EACH, budget=budget)[0])
    assert float((together - sum(alone)).abs().max()) <= 1e-15
    assert float((backwards - together).abs().max()) <= 1e-15


# Refusals


@pytest.mark.parametrize(
    ("config", "culprit"),
    [
        ({"modules_to_save": ["norm"]}, "norm"),
        ({"bias": "lora_only", "target_modules": ["q_proj"], "lora_bias": True}, "bias"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embedding"),
        ({"use_dora": True}, "magnitude"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    ],
)
def test_what_is_trainable_outside_the_clip_is_refused(
    tiny_model_folder: Path, config: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(UnclippableParameter, match=culprit):
        engine(lora_model(tiny_model_folder, **config), ROWS, ONE_ROW_EACH)


def test_a_base_weight_left_trainable_is_refused(model: nn.Module) -> None:
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(UnclippableParameter, match="embed_tokens"):
        engine(model, [], [])


def test_adapters_in_low_precision_are_refused(model: nn.Module) -> None:
    with pytest.raises(UnclippableParameter, match="float32"):
        engine(model.bfloat16(), ROWS, ONE_ROW_EACH)


def test_a_base_in_low_precision_with_float32_adapters_is_clipped(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if "lora_" in name else parameter.data.bfloat16()
    total, evidence = engine(model, ROWS, ONE_ROW_EACH, l2_clip_norm=0.01)
    assert flat(total).dtype == torch.float64
    assert evidence.num_clipped == 6
    assert 0 < float(flat(total).norm()) <= 6 * 0.01


def test_a_gradient_that_bypasses_the_clip_is_refused(model: nn.Module) -> None:
    weight = next(iter(adapter_parameters(model).values()))
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: output * weight.sum())
    with pytest.raises(UnclippableParameter, match="outside its layer"):
        engine(model, ROWS, ONE_ROW_EACH)


def test_an_adapter_without_part_in_the_loss_is_refused() -> None:
    with pytest.raises(UnclippableParameter, match=r"spare.* takes no part in the loss"):
        engine(toy_with_adapter("proj", "spare", twice=False, flattened=False), ROWS, ONE_ROW_EACH)


def test_a_model_without_adapter_is_refused(model: nn.Module) -> None:
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable LoRA matrix"):
        adapter_parameters(model)


def test_adapter_dropout_is_refused_in_training_mode_only(tiny_model_folder: Path) -> None:
    model = lora_model(tiny_model_folder, lora_dropout=0.1)
    engine(model, ROWS, ONE_ROW_EACH)
    with pytest.raises(RowsInteract, match="lora_dropout"):
        engine(model.train(), ROWS, ONE_ROW_EACH)


def test_attention_dropout_is_refused_in_training_mode(model: nn.Module) -> None:
    model.get_base_model().model.layers[1].self_attn.attention_dropout = 0.1
    with pytest.raises(RowsInteract, match=r"layers\.1\.self_attn"):
        engine(model.train(), ROWS, ONE_ROW_EACH)


@pytest.mark.parametrize("rope_type", ["dynamic", {"full_attention": "longrope"}])
def test_positions_that_are_scaled_by_the_longest_row_are_refused(model: nn.Module, rope_type: Any) -> None:
    model.get_base_model().model.rotary_emb.rope_type = rope_type
    with pytest.raises(RowsInteract, match="rotary_emb"):
        engine(model, ROWS, ONE_ROW_EACH)


def test_routed_experts_are_refused(model: nn.Module) -> None:
    model.get_base_model().model.layers[0].mlp.add_module("experts", nn.ModuleList([nn.Identity()]))
    with pytest.raises(RowsInteract, match="experts"):
        engine(model, ROWS, ONE_ROW_EACH)


def test_batch_norm_is_refused_in_training_mode(model: nn.Module) -> None:
    model.add_module("mixer", nn.BatchNorm1d(4, affine=False))
    with pytest.raises(RowsInteract, match="mixer"):
        engine(model.train(), ROWS, ONE_ROW_EACH)


@pytest.mark.parametrize("constant", ["l2_clip_norm", "loss_normalizer", "tokens_per_micro_batch"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_constants_must_be_positive_and_finite(constant: str, value: float) -> None:
    constants: dict[str, Any] = {"l2_clip_norm": C, "loss_normalizer": 1.0, "tokens_per_micro_batch": 8}
    with pytest.raises(ValueError, match=constant):
        Clipping(**(constants | {constant: value}))


@pytest.mark.parametrize("clip_norm", [LEAST_CLIP_NORM / 2, 2 / LEAST_CLIP_NORM])
def test_clip_norms_at_which_squares_leave_float32_are_refused(clip_norm: float) -> None:
    with pytest.raises(ValueError, match="l2_clip_norm"):
        Clipping(clip_norm, NORMALIZER, 40)


# Layers used in unusual ways


class ToyBody(nn.Module):
    """Embeds tokens, projects them (twice, or with rows and tokens in one dimension), and leaves a layer unused."""

    def __init__(self, *, twice: bool, flattened: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.proj, self.spare = nn.Embedding(64, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.twice, self.flattened = twice, flattened

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        hidden = self.embed(input_ids)
        hidden = self.proj(hidden.flatten(0, 1)).view_as(hidden) if self.flattened else self.proj(hidden)
        return SimpleNamespace(last_hidden_state=self.proj(hidden.tanh()) if self.twice else hidden)


class Toy(nn.Module):
    """The least that the engine asks of a language model: a body, a head, and a choice of attention."""

    def __init__(self, **use: bool) -> None:
        super().__init__()
        self.base_model, self.head, self.config = ToyBody(**use), nn.Linear(8, 64), PreTrainedConfig()

    def set_attn_implementation(self, name: str) -> None:
        self.config._attn_implementation_internal = name

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        return SimpleNamespace(logits=self.head(self.base_model(input_ids, **options).last_hidden_state))


def toy_with_adapter(*adapted: str, **use: bool) -> nn.Module:
    config = LoraConfig(r=2, target_modules=list(adapted or ["proj"]), init_lora_weights=False)
    model = get_peft_model(Toy(**use), config)
    return model.eval()


def test_a_layer_used_twice_adds_both_gradients() -> None:
    model = toy_with_adapter(twice=True, flattened=False)
    total, _ = engine(model, ROWS, SHARED)
    assert_same(total, loop_over_units(model, ROWS, SHARED)[0])


def test_a_layer_that_cannot_tell_rows_apart_is_refused() -> None:
    with pytest.raises(UnclippableParameter, match="1, tokens, features"):
        engine(toy_with_adapter(twice=False, flattened=True), ROWS, ONE_ROW_EACH)


@pytest.mark.parametrize("budget", [40, 64, 128, 512])
def test_a_layer_of_the_body_that_the_head_uses_too_is_refused(budget: int) -> None:
    model = toy_with_adapter(twice=False, flattened=False)
    base = model.get_base_model()
    base.head = nn.Sequential(base.base_model.proj, base.head)
    with pytest.raises(UnclippableParameter, match="1, tokens, features"):
        engine(model, ROWS, ONE_ROW_EACH, budget=budget)


# Memory


class Memory:
    """A stand-in for a full device: fails while more than `capacity` tokens are in the pass."""

    def __init__(self, capacity: int, error: RuntimeError) -> None:
        self.capacity, self.error, self.failures = capacity, error, 0

    def watch_forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._check(output)

    def watch_backward(self, module: nn.Module, input_gradients: Any, output_gradients: Any) -> None:
        self._check(output_gradients[0])

    def _check(self, tensor: Tensor) -> None:
        if tensor.shape[1] > self.capacity:
            self.failures += 1
            raise self.error


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("allocation failed"),
    RuntimeError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_running_out_of_memory_halves_the_micro_batch_and_loses_nobody(
    model: nn.Module, error: RuntimeError, phase: str
) -> None:
    expected, _ = engine(model, ROWS, ONE_ROW_EACH)
    memory = Memory(20, error)
    layer = model.get_base_model().model.layers[0].mlp
    if phase == "forward":
        layer.register_forward_hook(memory.watch_forward)
    else:
        layer.register_full_backward_hook(memory.watch_backward)
    total, evidence = engine(model, ROWS, ONE_ROW_EACH, budget=512)
    assert memory.failures > 0
    assert evidence.num_units == 6
    assert_same(total, expected)


def test_a_unit_beyond_memory_is_reported_without_its_size(model: nn.Module) -> None:
    model.get_base_model().model.layers[0].mlp.register_forward_hook(
        Memory(0, torch.OutOfMemoryError("tried to allocate 123456 bytes")).watch_forward
    )
    with pytest.raises(MicroBatchTooLarge, match="the rows of one unit") as failure:
        engine(model, ROWS, ONE_ROW_EACH)
    assert failure.value.__context__ is None


def test_other_failures_pass_through_and_leave_no_taps(model: nn.Module) -> None:
    model.get_base_model().model.layers[0].mlp.register_forward_hook(
        Memory(0, RuntimeError("another defect")).watch_forward
    )
    with pytest.raises(RuntimeError, match="another defect"):
        engine(model, ROWS, ONE_ROW_EACH)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("shape", [(9, 7), (1, 1), (8, 576), (1000, 1000)])
@pytest.mark.parametrize("value", [0.7, 1 / 3])
def test_a_norm_is_exact_to_four_roundings_of_float32_whatever_the_size(shape: tuple[int, int], value: float) -> None:
    """Float32 throughout is off by 7e-4 for a million values alike, most of the clip's margin."""
    _, norms = clipping._clip({"weight": torch.full((2, *shape), value)}, 0.3)
    expected = float(torch.tensor(value).double()) * math.sqrt(math.prod(shape))
    assert norms.tolist() == pytest.approx([expected] * 2, rel=4 * 2.0**-24)


def test_a_norm_is_that_of_all_tensors_together() -> None:
    gradients = {"first": torch.full((1, 3, 5), 0.5), "second": torch.full((1, 7, 11), 0.25)}
    _, norms = clipping._clip(gradients, 0.3)
    assert float(norms) == pytest.approx(math.sqrt(15 / 4 + 77 / 16), rel=1e-6)


@pytest.mark.parametrize("shape", [(9, 7), (8, 8), (1, 40_000), (8, 576), (576, 8), (1000, 3000)])
def test_a_norm_is_the_same_to_the_last_bit_beside_other_units(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(9, *shape)
    _, together = clipping._clip({"weight": gradient}, 0.3)
    alone = [clipping._clip({"weight": gradient[unit : unit + 1]}, 0.3)[1] for unit in range(len(gradient))]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(("value", "is_held"), [(2e18, True), (3e18, False), (3e38, False)])
@pytest.mark.parametrize("shape", [(8, 8), (13, 7)])
def test_a_finite_gradient_is_clipped_or_where_float32_cannot_hold_its_squares_zero(
    shape: tuple[int, int], value: float, is_held: bool
) -> None:
    shares, norms = clipping._clip({"weight": torch.full((1, *shape), value)}, 0.3)
    assert torch.isfinite(norms).all() == is_held
    assert float(shares["weight"].norm()) == pytest.approx(0.3 * (1 - ROUNDING_MARGIN) if is_held else 0)


def test_a_gradient_whose_squares_vanish_is_shorter_than_any_clip_norm_allows() -> None:
    """Squares below 1e-45 are zero in float32, so such a unit is not scaled."""
    gradient = torch.full((1, 1000, 1000), 1e-23)
    shares, norms = clipping._clip({"weight": gradient}, LEAST_CLIP_NORM)
    assert float(norms) == 0
    assert float(shares["weight"].norm()) < ROUNDING_MARGIN * LEAST_CLIP_NORM
