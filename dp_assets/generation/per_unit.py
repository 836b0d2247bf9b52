"""Clipped sums of per-unit gradients in one forward and one backward pass.

Guarantee: `clipped_sum` returns the sum over units u of

    g_u * min(1, C / |g_u|),    g_u = sum over the rows of u of the gradient of (sum of token losses / loss_normaliser)

where the L2 norm is one flat norm over every trainable tensor. Adding or removing one unit therefore moves the sum by
at most C (`l2_clip_norm`). A unit is clipped after its rows are added: clipping them one by one would multiply its
sensitivity by its rows.

How: only LoRA layers are trainable. During the pass each is run by an autograd function that computes the same
product, and whose backward keeps the gradient of every row, the einsum over tokens of output gradient and input,
instead of the sum over the batch. A parameter whose gradient could come about in any other way is refused, so nothing
trains outside the clip.

What makes a unit's share its own: the loss of a row is a sum over its tokens divided by a public constant, never a
mean over the batch; rows are padded on the right, where causal attention does not look; layers that mix rows, or whose
random mask depends on the layout of the batch, are refused, and so are routed experts, which compute on whatever tokens
all rows send them.

Rounding too. Which kernels run, and so how a product rounds, follows from the shapes of tensors. Here the shape of the
micro-batch in which a unit is computed follows from that unit alone: its padded width from its longest row, the number
of its slots from the width and the token budget. Slots that no unit needs are filled with padding, and nothing else
depends on how many rows there are. Who else is in the batch then decides only which other contents the same kernels
see, and shares come out the same to the last bit (on the CPU, in float32: `tests/replay`). They are added up in
float64. What is left is measured in the run (`probe.py`) and lies inside the sensitivity: the clip aims below its norm
by a margin that holds it, and a device or model that rounds more coarsely is refused.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from dp_assets.privacy.mechanisms import ROUNDING_MARGIN

NORM_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
IGNORED = -100  # the label that cross-entropy skips
PADDING = 0  # any token will do: nothing attends to padding, so a text may contain this id
ROUTED = frozenset(["experts", "router", "moe"])
SCALED_BY_LENGTH = frozenset(["dynamic", "longrope"])
WIDTH_STEP, STEPS_A_DOUBLING = 8, 4  # padded widths: 8, 16, ... 64, 80, ... 128, 160, ...

Gradients = dict[str, Tensor]


class UnclippableParameter(ValueError):
    """A trainable parameter whose per-row gradient this engine cannot see, and so cannot clip."""


class RowsInteract(ValueError):
    """A layer makes one row's gradient depend on the other rows of the batch."""


class MicroBatchTooLarge(RuntimeError):
    """The rows of one unit alone do not fit into memory."""


@dataclass(frozen=True)
class TokenRow:
    """One text: `prompt_ids` are read, `target_ids` are learnt. Both hold at least one token.

    Raises:
      ValueError: one of them is empty.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.target_ids:
            raise ValueError("prompt_ids and target_ids must each hold at least one token; drop such rows beforehand")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


@dataclass(frozen=True)
class ClippingEvidence:
    """What was clipped, and at which norm. Those are public; every count is restricted and absent from `repr`."""

    names: tuple[str, ...]
    l2_clip_norm: float
    num_units: int = field(repr=False)
    num_clipped: int = field(repr=False)
    num_non_finite: int = field(repr=False)
    norm_quantiles: tuple[float, ...] = field(repr=False)  # at NORM_QUANTILES, of the finite norms before clipping

    @property
    def restricted(self) -> dict[str, Any]:
        """The counts and norms of units, for the private zone."""
        return {
            "num_units": self.num_units,
            "num_clipped": self.num_clipped,
            "num_non_finite": self.num_non_finite,
            "norm_quantiles": list(self.norm_quantiles),
        }


def clipped_sum(
    model: nn.Module,
    rows: Sequence[TokenRow],
    unit_ids: Sequence[str],
    *,
    l2_clip_norm: float,
    loss_normaliser: float,
    tokens_per_micro_batch: int,
) -> tuple[Gradients, ClippingEvidence]:
    """The sum of clipped unit gradients: one float64 tensor by parameter name, each of its parameter's shape.

    `unit_ids[i]` is the unit of `rows[i]`. A unit of non-finite gradient contributes exactly zero, and no rows give
    zeros. `tokens_per_micro_batch` bounds memory only: it counts tokens with padding, units are never split over
    micro-batches, and a unit longer than the budget gets a micro-batch of its own. Each micro-batch is computed in
    full, so a budget far beyond what a batch holds of one width costs time. One that runs out of memory is computed
    again with half its slots, the one case in which a share's rounding may follow from the state of the memory.

    Raises:
      UnclippableParameter: something trainable is not a float32 LoRA matrix, or got its gradient past the clip.
      RowsInteract: a layer in training mode mixes rows or drops activations.
      MicroBatchTooLarge: a single unit does not fit into memory.
      ValueError: a constant is not positive, or rows and unit ids differ in length.
    """
    if not all(0 < constant < math.inf for constant in (l2_clip_norm, loss_normaliser, tokens_per_micro_batch)):
        raise ValueError("l2_clip_norm, loss_normaliser and tokens_per_micro_batch must be positive and finite")
    layers = _adapter_layers(model)
    _refuse_interaction(model)
    model.zero_grad(set_to_none=True)
    total = {name: torch.zeros_like(layer.weight, dtype=torch.float64) for name, layer in layers}
    norms = [torch.zeros(0)]
    clip = partial(_clip_micro_batch, model, layers, l2_clip_norm=l2_clip_norm, loss_normaliser=loss_normaliser)
    for micro_batch in micro_batches(_rows_by_unit(rows, unit_ids), tokens_per_micro_batch):
        for clipped, unit_norms in _within_memory(clip, micro_batch):
            for name, share in clipped.items():
                total[name] += share
            norms.append(unit_norms.cpu())
    return total, _evidence(tuple(total), torch.cat(norms), l2_clip_norm)


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every trainable parameter by name, sorted: the tensors that `clipped_sum` covers.

    Raises:
      UnclippableParameter: something trainable is not a float32 LoRA matrix.
      ValueError: nothing is trainable.
    """
    return {name: layer.weight for name, layer in _adapter_layers(model)}


# Which parameters can be clipped


def _adapter_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Trainable LoRA layers, sorted by the name of their weight; a weight that two layers share is listed with each."""
    trainable = {id(weight): name for name, weight in model.named_parameters() if weight.requires_grad}
    parts = [
        part for module in model.modules() if isinstance(module, LoraLayer) for part in (module.lora_A, module.lora_B)
    ]
    linears = [layer for part in parts for layer in part.values() if type(layer) is nn.Linear]
    layers = [(trainable[id(layer.weight)], layer) for layer in linears if id(layer.weight) in trainable]
    outside = sorted(set(trainable.values()) - {name for name, _ in layers})
    if outside:
        raise UnclippableParameter(f"{outside[0]} is trainable but is no LoRA matrix of a linear layer; freeze it")
    for name, layer in layers:
        if layer.weight.dtype != torch.float32:
            raise UnclippableParameter(f"{name} must be float32: lower precision is too coarse to clip and to add up")
    if not layers:
        raise ValueError("the model has no trainable LoRA matrix; wrap it with peft.get_peft_model first")
    return sorted(layers, key=lambda named: named[0])


def _refuse_interaction(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if SCALED_BY_LENGTH & set(_rope_types(module)):
            raise RowsInteract(f"{name} scales positions by the longest row it has seen; choose another model")
        if name.rpartition(".")[2] in ROUTED:
            raise RowsInteract(f"{name} sends tokens to experts in groups of all rows; choose a dense model")
        if module.training and (_drops_activations(module) or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise RowsInteract(f"{name} drops activations or mixes rows in training mode; call model.eval()")


def _rope_types(module: nn.Module) -> Collection[str]:
    """How rotary embeddings scale positions: one way, or one for each kind of layer."""
    rope_type = getattr(module, "rope_type", ())
    return rope_type.values() if isinstance(rope_type, Mapping) else {rope_type} if rope_type else ()


def _drops_activations(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return bool(module.p > 0)
    # Attention layers of transformers keep the rate as a number and drop inside the kernel.
    rate = getattr(module, "attention_dropout", 0.0)
    return isinstance(rate, int | float) and rate > 0


# Micro-batches

Unit = Sequence[TokenRow]


def _rows_by_unit(rows: Sequence[TokenRow], unit_ids: Sequence[str]) -> list[Unit]:
    units: dict[str, list[TokenRow]] = {}
    for row, unit_id in zip(rows, unit_ids, strict=True):
        units.setdefault(unit_id, []).append(row)
    return list(units.values())


@dataclass(frozen=True)
class MicroBatch:
    """Units that are computed together, in `slots` rows of `width` tokens; slots beyond their rows hold padding."""

    units: tuple[Unit, ...]
    slots: int
    width: int


def micro_batches(units: Sequence[Unit], token_budget: int) -> Iterator[MicroBatch]:
    """Cut units into micro-batches whose shapes follow from each of their units alone, the widest first.

    So a budget beyond memory shows at once.
    """
    of_width: dict[int, list[Unit]] = {}
    for unit in units:
        of_width.setdefault(padded_width(unit), []).append(unit)
    for width in sorted(of_width, reverse=True):
        yield from _packed(of_width[width], slots=max(1, token_budget // width), width=width)


def padded_width(unit: Unit) -> int:
    """The length of the unit's longest row, rounded up to one of few widths: by less than 8 tokens, or by a quarter."""
    longest = max(len(row) for row in unit)
    step = max(WIDTH_STEP, (1 << (longest.bit_length() - 1)) // STEPS_A_DOUBLING)
    return math.ceil(longest / step) * step


def _packed(units: Sequence[Unit], *, slots: int, width: int) -> Iterator[MicroBatch]:
    """Micro-batches of `slots` rows; a unit of more rows has one of its own, as large as itself."""
    held: list[Unit] = []
    num_rows = 0
    for unit in units:
        if held and num_rows + len(unit) > slots:
            yield MicroBatch(tuple(held), max(slots, num_rows), width)
            held, num_rows = [], 0
        held.append(unit)
        num_rows += len(unit)
    if held:
        yield MicroBatch(tuple(held), max(slots, num_rows), width)


Clipped = tuple[Gradients, Tensor]


def _within_memory(clip: Callable[[MicroBatch], Clipped], batch: MicroBatch) -> Iterator[Clipped]:
    """`clip(batch)`, or the same units in half the slots where memory runs out. No unit is lost."""
    try:
        clipped = clip(batch)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    else:
        yield clipped
        return
    # Out of the handler: while the error lives, its traceback holds the tensors of the failed attempt.
    slots = max(batch.slots // 2, *(len(unit) for unit in batch.units))
    if slots >= batch.slots:
        raise MicroBatchTooLarge("the rows of one unit do not fit into memory; allow fewer tokens a row")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for smaller in _packed(batch.units, slots=slots, width=batch.width):
        yield from _within_memory(clip, smaller)


def _is_out_of_memory(error: RuntimeError) -> bool:
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in message or "can't allocate memory" in message


# One micro-batch: forward, backward, clip


def _clip_micro_batch(
    model: nn.Module,
    layers: Sequence[tuple[str, nn.Linear]],
    batch: MicroBatch,
    *,
    l2_clip_norm: float,
    loss_normaliser: float,
) -> Clipped:
    """The clipped sum over some units, and the norm of each unit before clipping, shape [units].

    A slot of padding is treated like a unit whose gradient is zero, so that no shape tells how many there are.
    """
    rows = [row for unit in batch.units for row in unit]
    with _tapped(layers, num_rows=batch.slots) as row_gradients:
        _summed_loss(model, rows, loss_normaliser, slots=batch.slots, width=batch.width).backward()
    _refuse_untapped(layers, row_gradients)
    owners = [index for index, unit in enumerate(batch.units) for _ in unit]
    num_units, num_empty = len(batch.units), batch.slots - len(rows)
    unit_index = torch.tensor([*owners, *range(num_units, num_units + num_empty)])
    clipped, norms = _clip(_add_rows(row_gradients, unit_index, num_units + num_empty), l2_clip_norm)
    return clipped, norms[:num_units]


def _summed_loss(
    model: nn.Module, rows: Sequence[TokenRow], loss_normaliser: float, *, slots: int, width: int
) -> Tensor:
    """Sum over rows and target tokens of the cross-entropy, divided by a constant.

    The head runs on every position: on the targets only, its shape would follow from the other rows' lengths. There is
    no attention mask, since causal attention never looks at padding on the right, and a mask would change the kernel
    of all rows as soon as one of them is shorter than the rest.
    """
    device = next(model.parameters()).device
    tokens = torch.full((slots, width), PADDING)
    labels = torch.full((slots, width), IGNORED)  # labels[n, t] is the token after position t
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row.prompt_ids + row.target_ids)
        labels[index, len(row.prompt_ids) - 1 : len(row) - 1] = torch.tensor(row.target_ids)
    logits = model(input_ids=tokens.to(device), use_cache=False).logits
    loss = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten().to(device), ignore_index=IGNORED, reduction="sum"
    )
    return loss / loss_normaliser


class _TappedLinear(torch.autograd.Function):  # type: ignore[misc]
    """`inputs @ weight.T` whose backward hands both gradient factors to `tap` and gives the weight itself no gradient.

    The tap is called in the backward pass only, so a forward that checkpointing repeats is not counted twice.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, tap: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.tap = tap
        return functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, None, None]:
        inputs, weight = ctx.saved_tensors
        ctx.tap(output_gradient, inputs)
        return output_gradient @ weight, None, None


@contextmanager
def _tapped(layers: Sequence[tuple[str, nn.Linear]], *, num_rows: int) -> Iterator[Gradients]:
    """Within the context a backward pass fills the yielded mapping with float32 tensors [rows, outputs, inputs]."""
    row_gradients: Gradients = {}

    def keep(name: str, output_gradient: Tensor, inputs: Tensor) -> None:
        if inputs.ndim != 3 or inputs.shape[0] != num_rows:
            raise UnclippableParameter(f"{name} gets an input that is not [rows, tokens, features]; freeze it")
        gradient = torch.einsum("nto,nti->noi", output_gradient.float(), inputs.float())
        row_gradients[name] = row_gradients[name] + gradient if name in row_gradients else gradient

    def run(layer: nn.Linear, name: str, inputs: Tensor) -> Tensor:
        output: Tensor = _TappedLinear.apply(inputs, layer.weight, partial(keep, name))
        return output

    for name, layer in layers:
        layer.forward = partial(run, layer, name)
    try:
        yield row_gradients
    finally:
        for _, layer in layers:
            del layer.forward  # the instance attribute; the class's own forward shows again


def _refuse_untapped(layers: Sequence[tuple[str, nn.Linear]], row_gradients: Gradients) -> None:
    """Each matrix must get its gradient through its tap, and through nothing else."""
    for name, layer in layers:
        if layer.weight.grad is not None:
            raise UnclippableParameter(f"{name} is used outside its layer, where it cannot be clipped; freeze it")
        if name not in row_gradients:
            raise UnclippableParameter(f"{name} takes no part in the loss; freeze it or name fewer target modules")


def _add_rows(row_gradients: Gradients, unit_index: Tensor, num_units: int) -> Gradients:
    """Add the rows of each unit: [rows, ...] becomes [units, ...]. Rows lie unit after unit, as `unit_index` says."""
    if len(unit_index) == num_units:
        return row_gradients  # one row a unit, the usual case, needs no second copy of the largest tensors
    return {
        name: gradient.new_zeros(num_units, *gradient.shape[1:]).index_add_(0, unit_index.to(gradient.device), gradient)
        for name, gradient in row_gradients.items()
    }


def _clip(unit_gradients: Gradients, l2_clip_norm: float) -> Clipped:
    """Scale each unit to a flat norm of at most `l2_clip_norm`, add the units up, and return the norms found before.

    A unit of infinite or undefined norm counts as zero. It is blanked before the product, because infinity times a
    factor of zero would be undefined and would void the whole sum.
    """
    squares = [gradient.square().sum(dim=(1, 2)).double() for gradient in unit_gradients.values()]
    norms = torch.stack(squares).sum(dim=0).sqrt().float()
    unusable = ~torch.isfinite(norms)
    factors = (l2_clip_norm * (1 - ROUNDING_MARGIN) / norms).clamp(max=1).masked_fill(unusable, 0)
    # Products and sums element by element: as a matrix product this could run in TF32, whose error is half the margin.
    # Sums in float64: in float32 they round by their own length, and reach the margin in batches of a few thousand.
    clipped = {
        name: (gradient.masked_fill(unusable[:, None, None], 0) * factors[:, None, None]).sum(0, dtype=torch.float64)
        for name, gradient in unit_gradients.items()
    }
    return clipped, norms


def _evidence(names: tuple[str, ...], norms: Tensor, l2_clip_norm: float) -> ClippingEvidence:
    finite = norms[torch.isfinite(norms)]
    quantiles = torch.quantile(finite, torch.tensor(NORM_QUANTILES)).tolist() if len(finite) else ()
    return ClippingEvidence(
        names=names,
        l2_clip_norm=l2_clip_norm,
        num_units=len(norms),
        num_clipped=int((finite > l2_clip_norm).sum()),
        num_non_finite=len(norms) - len(finite),
        norm_quantiles=tuple(quantiles),
    )
