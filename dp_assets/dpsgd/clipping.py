"""Sum of clipped per-unit gradients, from one forward and one backward pass for each micro-batch.

Guarantee: `clipped_sum` returns the sum over units u of

    g_u * min(1, C' / |g_u|),    g_u = sum over the rows of u of the gradient of (sum of token losses / loss_normalizer)

where |g_u| is one L2 norm over all trainable tensors together, and C' is 0.1% below the clip norm C (`l2_clip_norm`),
which leaves room for rounding. Adding or removing one unit therefore changes the sum by at most C in L2 norm. A unit is
clipped after the gradients of its rows are added. Clipping each row would multiply the sensitivity by the number of
rows.

Method. Only LoRA layers are trainable. During the pass an autograd function runs each of them, and its backward pass
calls this module with the factors of the matrices' gradients (`lora_gradients.py`). The factors are multiplied over the
tokens of each row instead of over the whole batch. A parameter that could get its gradient in any other way is refused,
so nothing is trained without clipping.

Independence of the rest of the batch. The loss of a row is a sum over its tokens divided by a public constant, never a
mean over the batch. Layers that mix rows are refused, and so are layers whose random mask depends on the layout of the
batch, and routed experts, which compute on tokens grouped across rows.

Speed. The sum depends neither on the order of the units nor on the division into micro-batches. So units are packed
into micro-batches of a fixed number of tokens, longest first, as packed sequences without padding (`packing.py` keeps
rows apart). The language model's head runs only at positions that have a label, in chunks. The gradient of a low-rank
matrix is computed row by row, which costs less than a second backward pass for the norms. None of this changes what is
computed for a unit.

Rounding. The shapes of tensors determine which kernels run, and so how a product rounds. The length of the packed
sequence in which a unit is computed follows from that unit alone: it is the token budget, or the unit's own length if
that is greater. In attention and in per-row gradients each row has its own padded width. How many rows of one width are
computed together does depend on the batch, but CPU kernels treat each row separately. There, clipped gradients are the
same to the last bit in float32 and bfloat16 (`tests/replay`), for models whose widths are multiples of 4. They are
added in float64.

On other devices and widths, the remaining dependence on the rest of the batch is measured in the run, on rows up to the
longest (`sensitivity_probe.py`). It stays within the sensitivity, because gradients are clipped to a norm below C by a
margin that covers it. A device or model that rounds more coarsely is refused. Below float32, any dependence of the
rounding on the rest of the batch is refused.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn import functional

from dp_assets.dpsgd.lora_gradients import LowRankLayer, UnclippableParameter, low_rank_layers, tapped
from dp_assets.dpsgd.packing import (
    IGNORED,
    PackedRows,
    RowBuffer,
    RowsInteract,
    TokenRow,
    attending_within_rows,
    causal_lm,
    decode,
    logits_of,
    padded_width,
)
from dp_assets.privacy.plan import LEAST_CLIP_NORM
from dp_assets.privacy.sampling_and_noise import ROUNDING_MARGIN

NORM_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
PIECE = 64  # values whose squares are added in float32
ROUTED = frozenset(["experts", "router", "moe"])
SCALED_BY_LENGTH = frozenset(["dynamic", "longrope"])

Gradients = dict[str, Tensor]
Clipped = tuple[Gradients, Tensor]  # a sum over units, and the norm of each before clipping, shape [units]


class MicroBatchTooLarge(RuntimeError):
    """The rows of one unit alone do not fit into memory."""


@dataclass(frozen=True)
class Clipping:
    """The public constants of a clipped sum.

    `tokens_per_micro_batch` only bounds memory.

    Raises:
      ValueError: a constant is not positive and finite, or `l2_clip_norm` is so small or large that float32 does not
        hold its square with room to spare.
    """

    l2_clip_norm: float
    loss_normalizer: float
    tokens_per_micro_batch: int

    def __post_init__(self) -> None:
        constants = self.l2_clip_norm, self.loss_normalizer, self.tokens_per_micro_batch
        if not all(0 < constant < math.inf for constant in constants):
            raise ValueError("l2_clip_norm, loss_normalizer and tokens_per_micro_batch must be positive and finite")
        if (
            not LEAST_CLIP_NORM <= self.l2_clip_norm <= 1 / LEAST_CLIP_NORM
        ):  # beyond, squares leave the range of float32
            raise ValueError(f"l2_clip_norm must lie in [{LEAST_CLIP_NORM:g}, {1 / LEAST_CLIP_NORM:g}]")


@dataclass(frozen=True)
class ClippingEvidence:
    """What was clipped, and with which constants.

    The constants are public. Every count and norm is restricted and absent from `repr`.
    """

    names: tuple[str, ...]
    l2_clip_norm: float
    loss_normalizer: float
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


@dataclass(frozen=True)
class GradientEngine:
    """A model and the constants of its clipping. The sensitivity probe and every training step use the same object."""

    model: nn.Module
    clipping: Clipping

    def clipped_sum(self, rows: Sequence[TokenRow], unit_ids: Sequence[str]) -> tuple[Gradients, ClippingEvidence]:
        """Return the sum of the clipped gradients of these units: see `clipped_sum`."""
        return clipped_sum(self.model, rows, unit_ids, self.clipping)


def clipped_sum(
    model: nn.Module, rows: Sequence[TokenRow], unit_ids: Sequence[str], clipping: Clipping
) -> tuple[Gradients, ClippingEvidence]:
    """Return the sum of clipped per-unit gradients: a float64 tensor by parameter name, of the parameter's shape.

    `unit_ids[i]` is the unit of `rows[i]`.

    - A unit whose gradient norm is not finite contributes exactly zero.
    - Without rows the sum is zero.
    - A unit is never split over micro-batches. One that is longer than the token budget gets its own micro-batch.
    - Every micro-batch is computed at its full length, so a budget as large as a whole batch wastes up to half of it.
    - A micro-batch that runs out of memory is computed again in halves. This is the only case in which the rounding of
      a clipped gradient may depend on the state of the memory.

    Raises:
      UnclippableParameter: something trainable is not a float32 LoRA matrix, or got a gradient that was not clipped.
      RowsInteract: a layer in training mode mixes rows or drops activations.
      MicroBatchTooLarge: a single unit does not fit into memory.
      ValueError: rows and unit ids differ in length.
    """
    *_, (total, norms) = _running_sums(model, rows, unit_ids, clipping)
    return total, _evidence(tuple(total), norms, clipping)


def _running_sums(
    model: nn.Module, rows: Sequence[TokenRow], unit_ids: Sequence[str], clipping: Clipping
) -> Iterator[Clipped]:
    """Yield the sum and the norms of the units so far: first of none, then after each micro-batch, last of all units.

    Every yield returns the same tensors, updated in place. Do not use the model between yields: its attention is
    replaced.
    """
    layers = low_rank_layers(model)
    _refuse_interaction(model)
    model.zero_grad(set_to_none=True)
    total = {name: torch.zeros_like(matrix, dtype=torch.float64) for name, matrix in _named_matrices(layers).items()}
    norms = torch.zeros(0, dtype=torch.float64)
    yield total, norms
    with attending_within_rows(model):
        for micro_batch in micro_batches(_rows_by_unit(rows, unit_ids), clipping.tokens_per_micro_batch):
            for clipped, unit_norms in _clip_within_memory(model, layers, micro_batch, clipping):
                for name, gradient in clipped.items():
                    total[name] += gradient if gradient.shape == total[name].shape else gradient.mT
                norms = torch.cat([norms, unit_norms.cpu()])
            yield total, norms


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every trainable parameter by name, sorted: the tensors that `clipped_sum` covers.

    Raises:
      UnclippableParameter: something trainable is not a float32 LoRA matrix.
      ValueError: nothing is trainable.
    """
    return _named_matrices(low_rank_layers(model))


# Which parameters can be clipped


def _named_matrices(layers: Sequence[LowRankLayer]) -> dict[str, nn.Parameter]:
    """Return the trainable matrices by name, sorted."""
    matrices = {name: matrix for layer in layers for name, matrix in layer.trainable.items()}
    return dict(sorted(matrices.items()))


def _refuse_interaction(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if SCALED_BY_LENGTH & set(_rope_types(module)):
            raise RowsInteract(f"{name} scales positions by the longest row it has seen; choose another model")
        if name.rpartition(".")[2] in ROUTED:
            raise RowsInteract(f"{name} sends tokens to experts in groups of all rows; choose a dense model")
        if module.training and (_drops_activations(module) or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise RowsInteract(f"{name} drops activations or mixes rows in training mode; call model.eval()")


def _rope_types(module: nn.Module) -> Collection[str]:
    """Return the scaling methods of rotary embeddings: one, or one for each kind of layer, or none."""
    rope_type = getattr(module, "rope_type", ())
    return rope_type.values() if isinstance(rope_type, Mapping) else {rope_type} if rope_type else ()


def _drops_activations(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return bool(module.p > 0)
    # Attention layers of transformers store the rate as a number and apply dropout inside the kernel.
    rate = getattr(module, "attention_dropout", 0.0)
    return isinstance(rate, int | float) and rate > 0


# Micro-batches

Unit = Sequence[TokenRow]


def _rows_by_unit(rows: Sequence[TokenRow], unit_ids: Sequence[str]) -> list[Unit]:
    units: dict[str, list[TokenRow]] = {}
    for row, unit_id in zip(rows, unit_ids, strict=True):
        units.setdefault(unit_id, []).append(row)
    return list(units.values())


@dataclass
class MicroBatch:
    """Units that are computed together, in a packed sequence of `num_tokens` tokens; unused positions are idle."""

    num_tokens: int
    units: list[Unit] = field(default_factory=list)
    num_free: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_free = self.num_tokens

    def add(self, unit: Unit) -> None:
        """Add a unit. The caller checks that it fits."""
        self.units.append(unit)
        self.num_free -= _num_tokens(unit)


def micro_batches(units: Sequence[Unit], token_budget: int) -> list[MicroBatch]:
    """Pack units into micro-batches of exactly `token_budget` tokens: longest unit first, into the first that fits.

    A unit longer than the budget gets a micro-batch of its own length, and no other unit joins it. So the length of a
    unit's micro-batch follows from the unit alone. The longest units come first, so that a budget that exceeds memory
    fails at once.
    """
    packed: list[MicroBatch] = []
    for unit in sorted(units, key=_num_tokens, reverse=True):
        fitting = (batch for batch in packed if batch.num_free >= _num_tokens(unit))
        batch = next(fitting, None)
        if batch is None:
            batch = MicroBatch(max(token_budget, _num_tokens(unit)))
            packed.append(batch)
        batch.add(unit)
    return packed


def _num_tokens(unit: Unit) -> int:
    return sum(map(len, unit))


def _clip_within_memory(
    model: nn.Module, layers: Sequence[LowRankLayer], batch: MicroBatch, clipping: Clipping
) -> Iterator[Clipped]:
    """Yield the clipped sum of a micro-batch, or of several smaller ones if memory runs out.

    The smaller ones have half the tokens and together hold the same units, so no unit is lost.
    """
    try:
        clipped = _clip_micro_batch(model, layers, batch, clipping)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    else:
        yield clipped
        return
    # Outside the handler: inside it, the error's traceback would keep the tensors of the failed attempt alive.
    if len(batch.units) == 1 and not batch.num_free:
        raise MicroBatchTooLarge("the rows of one unit do not fit into memory; allow fewer tokens a row")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for smaller in micro_batches(batch.units, batch.num_tokens // 2):
        yield from _clip_within_memory(model, layers, smaller, clipping)


def _is_out_of_memory(error: RuntimeError) -> bool:
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in message or "can't allocate memory" in message


# One micro-batch: forward, backward, clip


def _clip_micro_batch(
    model: nn.Module, layers: Sequence[LowRankLayer], batch: MicroBatch, clipping: Clipping
) -> Clipped:
    """Return the clipped sum over the units, tensors [narrow, wide], and the norms before clipping, shape [units]."""
    packed, owners = pack(batch, next(model.parameters()).device)
    with _forming_row_gradients(layers, packed) as row_gradients:
        backpropagate(model, packed, clipping.loss_normalizer)
    _refuse_untapped(layers, row_gradients)
    return _clip(_add_rows(row_gradients, owners, len(batch.units)), clipping.l2_clip_norm)


def pack(batch: MicroBatch, device: torch.device) -> tuple[PackedRows, Tensor]:
    """Return the packed sequence of a micro-batch, and for each row the index of its unit, shape [rows]."""
    owned = sorted(
        ((owner, row) for owner, unit in enumerate(batch.units) for row in unit),
        key=lambda owner_and_row: padded_width(len(owner_and_row[1])),
    )
    rows, owners = [row for _, row in owned], [owner for owner, _ in owned]
    return PackedRows(rows, batch.num_tokens, device), torch.tensor(owners, device=device)


def backpropagate(model: nn.Module, packed: PackedRows, loss_normalizer: float) -> None:
    """Backpropagate the cross-entropy, summed over target tokens and divided by `loss_normalizer`.

    The head runs only on positions that have a label, in chunks of one size. Logits are the largest tensors of the
    pass, and those of one chunk are freed before the next chunk is computed. Positions that fill up a chunk get zeros
    as hidden states: the head's output there need not be finite, and the gradient of an ignored label is 0 times it.
    """
    base = causal_lm(model)
    output = decode(base, packed)
    hidden = output.last_hidden_state  # [1, tokens, features]
    leaf = hidden.detach().requires_grad_()
    for positions, labels in packed.label_chunks:
        learned = leaf[:, positions].masked_fill((labels == IGNORED)[:, None], 0)
        logits = logits_of(base, output, learned)
        loss = functional.cross_entropy(logits[0].float(), labels, ignore_index=IGNORED, reduction="sum")
        (loss / loss_normalizer).backward()
    if hidden.requires_grad:
        hidden.backward(leaf.grad)


@contextmanager
def _forming_row_gradients(layers: Sequence[LowRankLayer], packed: PackedRows) -> Iterator[Gradients]:
    """Yield a mapping that a backward pass within the context fills with per-row gradients.

    They are float32 tensors [rows, narrow, wide] by parameter name. A gradient with more outputs than inputs is
    computed transposed, because small batched products run faster that way. `_running_sums` transposes its sum back.
    """
    row_gradients: Gradients = {}

    @cache
    def buffer(side: str, features: int, dtype: torch.dtype, zeros_behind: bool) -> RowBuffer:
        return RowBuffer(packed, features, dtype, zeros_behind=zeros_behind)

    def form(name: str, output_gradient: Tensor, inputs: Tensor) -> None:
        num_outputs, num_inputs = output_gradient.shape[2], inputs.shape[2]
        flat = num_outputs <= num_inputs  # padding is zero in the narrow factor only, which is enough for the product
        of_outputs = buffer("outputs", num_outputs, output_gradient.dtype, flat).fill(output_gradient, saved=False)
        of_inputs = buffer("inputs", num_inputs, inputs.dtype, not flat).fill(inputs, saved=True)
        narrow, wide = (of_outputs, of_inputs) if flat else (of_inputs, of_outputs)
        gradient = inputs.new_empty(len(packed.rows), *sorted((num_outputs, num_inputs)), dtype=torch.float32)
        for part, left, right in zip(gradient.split([len(left) for left in narrow]), narrow, wide, strict=True):
            torch.bmm(left.mT, right, out=part)
        row_gradients[name] = row_gradients[name] + gradient if name in row_gradients else gradient

    with tapped(layers, form, num_tokens=packed.num_tokens):
        yield row_gradients


def _refuse_untapped(layers: Sequence[LowRankLayer], row_gradients: Gradients) -> None:
    """Check that each matrix got its gradient through its tap, and in no other way."""
    for name, matrix in _named_matrices(layers).items():
        if matrix.grad is not None:
            raise UnclippableParameter(f"{name} is used outside its layer, where it cannot be clipped; freeze it")
        if name not in row_gradients:
            raise UnclippableParameter(f"{name} takes no part in the loss; freeze it or name fewer target modules")


def _add_rows(row_gradients: Gradients, owners: Tensor, num_units: int) -> Gradients:
    """Add the gradients of each unit's rows: [rows, ...] becomes [units, ...], in no particular order of units.

    `owners[i]` is the index of the unit of row i.
    """
    if len(owners) == num_units:
        return row_gradients  # one row per unit, the usual case: avoids a second copy of the largest tensors
    return {
        name: gradient.new_zeros(num_units, *gradient.shape[1:]).index_add_(0, owners, gradient)
        for name, gradient in row_gradients.items()
    }


def _clip(unit_gradients: Gradients, l2_clip_norm: float) -> Clipped:
    """Return the sum of the units' gradients, each scaled to a norm of at most `l2_clip_norm`, and their norms before.

    - The norm is one L2 norm over all tensors of a unit.
    - A unit of infinite or undefined norm counts as zero. Its values are set to zero before the product, because
      infinity times a factor of zero is undefined and would spoil the whole sum.
    - A unit of norm zero stays zero.
    - Products and sums are float64. In float32 their rounding would depend on the number of units, and with a few
      thousand units it would use up the margin.
    """
    norms = _norms(unit_gradients)
    unusable = ~torch.isfinite(norms)
    factors = (l2_clip_norm * (1 - ROUNDING_MARGIN) / norms).clamp(max=1).masked_fill(unusable, 0)
    if unusable.any():
        blank = unusable[:, None, None]
        unit_gradients = {name: gradient.masked_fill(blank, 0) for name, gradient in unit_gradients.items()}
    clipped = {
        name: (factors @ gradient.double().flatten(1)).unflatten(0, gradient.shape[1:])
        for name, gradient in unit_gradients.items()
    }
    return clipped, norms


def _norms(unit_gradients: Gradients) -> Tensor:
    """Return the L2 norm of each unit over all tensors, float64, shape [units].

    Squares are added in float32 within pieces of `PIECE` values, and pieces are added in float64. This is faster than
    float64 throughout, and the error of a norm is less than `PIECE` float32 roundings whatever the size of the model.
    With float32 throughout, the error would exceed the margin of clipping. A piece whose sum of squares exceeds the
    range of float32 makes the norm infinite.
    """
    pieces = [vector_norm(_in_pieces(gradient.flatten(1)), dim=2) for gradient in unit_gradients.values()]
    norms: Tensor = vector_norm(torch.cat(pieces, dim=1), dim=1, dtype=torch.float64)
    return norms


def _in_pieces(values: Tensor) -> Tensor:
    """Reshape [units, values] to [units, pieces, PIECE], padded with zeros."""
    missing = -values.shape[1] % PIECE
    pieces: Tensor = (functional.pad(values, (0, missing)) if missing else values).unflatten(1, (-1, PIECE))
    return pieces


def _evidence(names: tuple[str, ...], norms: Tensor, clipping: Clipping) -> ClippingEvidence:
    finite = norms[torch.isfinite(norms)]
    quantiles = torch.quantile(finite, finite.new_tensor(NORM_QUANTILES)).tolist() if len(finite) else ()
    return ClippingEvidence(
        names=names,
        l2_clip_norm=clipping.l2_clip_norm,
        loss_normalizer=clipping.loss_normalizer,
        num_units=len(norms),
        num_clipped=int((finite > clipping.l2_clip_norm).sum()),
        num_non_finite=len(norms) - len(finite),
        norm_quantiles=tuple(quantiles),
    )
