"""Sensitivity probe: measures the sensitivity of clipped sums on public rows before training.

It uses the model, the functions and the constants of the run.

Measured: the clipped sum of several units equals the sum of what each contributes alone, and no clipped gradient
exceeds the clip norm. This covers everything that makes a unit's gradient independent of the rest of the batch: the
loss is a sum over tokens divided by a constant, no layer mixes rows, padding has no effect, a unit is clipped as a
whole, and the division into micro-batches does not matter.

- The rows are fixed token ids of very different lengths.
- For the probe the adapter is set to fixed values, and restored bit by bit. Half the tensors of a fresh adapter are
  zero, which would hide the gradients of the other half.
- The sum is computed twice: in micro-batches of the run's size, and in three small ones, because a bug may only show
  with more than one micro-batch.

Rounding slack. A clipped gradient should not depend on the rest of the batch, not even in its last bits (`clipping.py`
says how). It does depend on it where kernels round by position or by neighboring rows: on some devices, and on the CPU
in models whose widths are not multiples of 4. Gradients are clipped to a norm below the clip norm by a margin. The
probe refuses a slack that could exceed the margin if the errors of all gradients in the largest batch of the plan were
aligned. This happens before a private row is read.

A base model coarser than float32 must give identical bits. There a value changes rarely, but by a whole unit in the
last place, and a few rows may show none of it. Measured with the packaged model on the CPU: below 1e-15, in float32 and
in bfloat16. Left out: a proof for every device. The slack is measured on these rows, in this run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from dp_assets.dpsgd.clipping import GradientEngine, adapter_parameters
from dp_assets.dpsgd.packing import TokenRow, require_rows_apart
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.sampling_and_noise import largest_rounding_slack

# Every vocabulary has these ids. There are long, short and medium rows, and one unit of two rows, so that units are at
# different positions of a micro-batch, next to units of the same width and of other widths.
PROBE_UNITS = (
    (TokenRow((3, 7), tuple(range(5, 25))),),
    (TokenRow((3,), (11,)),),
    (TokenRow((3, 7, 9), (8, 4, 4, 17, 2)), TokenRow((5,), (6, 21, 13))),
    (TokenRow((4, 9), tuple(range(25, 6, -1))),),
)
PROBE_ROWS = tuple(row for unit in PROBE_UNITS for row in unit)
# Factors of the loss normalizer: losses so small that nothing is clipped, and so large that everything is.
SCALES = (1e4, 1e-4)

# In every precision tried, rounding stays below this. More is a defect of the code, which the claim's check refuses.
COARSEST_ROUNDING = 0.3
OF_ADDING_UP = 1e-12  # above the rounding error of adding equal gradients in float64
COPIES = 4  # of the longest row: kernels may split a row by its length and by the number of rows
SMALL = 2 * max(map(len, PROBE_ROWS))  # tokens of a micro-batch; two copies of the fixed units fill three of them


class RoundingTooCoarse(PublicError, ValueError):
    """In this precision, this model's rounding depends too much on the batch. No private row was read."""


@dataclass(frozen=True)
class ProbeResult:
    """The measurements on public rows, under the names that the evidence uses. Both are unitless.

    - `largest_share`: the norm of the largest clipped gradient, divided by the clip norm.
    - `rounding_slack`: the norm of the difference between the clipped sum of several units and the sum of their
      clipped gradients alone, divided by the largest norm of these.
    """

    largest_share: float
    rounding_slack: float


def probe_sensitivity(engine: GradientEngine, *, largest_batch: float, longest_row: int) -> ProbeResult:
    """Measure the run's engine on the fixed rows, and on rows of `longest_row` tokens, the most that a row may have.

    Args:
      engine: the gradient engine of the run.
      largest_batch: the most units in a batch that the plan allows for.
      longest_row: the most tokens of a row.

    Raises:
      RoundingTooCoarse: train in float32, without TF32, or with `tokens_per_micro_batch = 1`.
      UnclippableParameter, RowsInteract, MicroBatchTooLarge: see `clipped_sum`; no private row was read yet.
    """
    clipping = engine.clipping
    require_rows_apart(engine.model, longest=longest_row)
    units = dict.fromkeys(PROBE_UNITS, 1)
    if longest_row > max(map(len, PROBE_ROWS)):
        units[(TokenRow((3, 7), tuple(5 + index % 20 for index in range(longest_row - 2))),)] = COPIES
    budget = clipping.tokens_per_micro_batch
    runs = (units, budget), (dict.fromkeys(PROBE_UNITS, 2), min(budget, SMALL))
    largest_share = rounding_slack = 0.0
    with _public_adapter(engine.model):
        for scale, (copies_of, tokens) in product(SCALES, runs):
            loss_normalizer = clipping.loss_normalizer * scale
            terms = replace(clipping, loss_normalizer=loss_normalizer, tokens_per_micro_batch=tokens)
            scaled = replace(engine, clipping=terms)
            copied = [owned for unit, copies in copies_of.items() for owned in _copied(unit, copies)]
            together = _flat_sum(scaled, copied)
            alone = {unit: _flat_sum(scaled, _copied(unit, 1)) for unit in copies_of}
            largest = max(float(gradient.norm()) for gradient in alone.values())
            largest_share = max(largest_share, largest / clipping.l2_clip_norm)
            apart = together - sum(copies * alone[unit] for unit, copies in copies_of.items())
            rounding_slack = max(rounding_slack, float(apart.norm()) / largest)
    largest_slack = largest_rounding_slack(largest_batch)
    if _is_coarse(engine.model):
        largest_slack = min(largest_slack, OF_ADDING_UP)
    if largest_slack < rounding_slack <= COARSEST_ROUNDING:
        raise RoundingTooCoarse(
            f"a unit's gradient moves by {rounding_slack:.1g} of itself with the units beside it, more than the"
            f" {largest_slack:.1g} that can be allowed for in this precision; set generator.dtype to float32 and leave"
            " TF32 off, set generator.tokens_per_micro_batch to 1, or raise corpus.delta towards one over ten times the"
            " number of units, which bounds how many a step may sample; a charge under which no row was read yet is"
            " freed by `dp-instructions ledger void`"
        )
    return ProbeResult(largest_share, rounding_slack)


def _is_coarse(model: nn.Module) -> bool:
    """Whether any part may be computed in lower precision than float32."""
    dtypes = {weight.dtype for weight in model.parameters()}
    as_fine = [dtype.is_floating_point and torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps for dtype in dtypes]
    return not all(as_fine) or torch.get_float32_matmul_precision() != "highest"


Unit = tuple[TokenRow, ...]


def _copied(unit: Unit, copies: int) -> list[tuple[TokenRow, str]]:
    """Return the rows of `copies` identical units, each row with the id of its unit. All ids differ."""
    return [(row, f"probe-{hash(unit)}-{copy}") for copy in range(copies) for row in unit]


def _flat_sum(engine: GradientEngine, owned: Sequence[tuple[TokenRow, str]]) -> Tensor:
    """Return the clipped sum of rows with their unit ids, float64, shape [parameters]."""
    exact_sum, _ = engine.clipped_sum([row for row, _ in owned], [unit for _, unit in owned])
    return torch.cat([tensor.flatten().cpu().double() for tensor in exact_sum.values()])


@contextmanager
def _public_adapter(model: nn.Module) -> Iterator[None]:
    """Within the context, every tensor of the adapter holds fixed small values; then the old values are restored."""
    parameters = list(adapter_parameters(model).values())
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                waves = torch.arange(parameter.numel(), dtype=torch.float32).mul(0.7).cos().mul(0.05)
                parameter.copy_(waves.view(parameter.shape))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, before, strict=True):
                parameter.copy_(values)
