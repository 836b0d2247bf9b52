"""A probe of the gradient engine on public rows, with the very model and functions of the run.

Guarantee measured: the clipped sum of several units is the sum of what each gives alone, and no clipped gradient is
longer than the clip norm. It rests on everything that keeps a unit's gradient independent of the rest of the batch: the
loss is a sum over tokens over a constant, no layer mixes rows, padding is inert, a unit is clipped as a whole, and the
cut into micro-batches does not matter. The rows are fixed token ids of very different lengths. The adapter is set to
fixed values for the probe, since a fresh one is zero in half its tensors and would hide theirs, and put back bit by
bit. The sum is formed twice: in micro-batches of the run, and in three small ones, since bugs may lie between one and
the next.

Rounding slack. A clipped gradient should not depend on the rest of the batch, not even in its last bits (`clipping.py`
says how). Where kernels round by position or by neighboring rows, it does: on some devices, and on the CPU in models
whose widths are no multiples of 4. The clip aims below its norm by a margin. A slack that could exceed the margin if
all gradients of the largest batch that the plan allows for rounded alike is refused before a private row is read. A
base coarser than float32 must give the same bits, since there a value flips seldom but by a whole unit of its own, and
a few rows may see none of it. Measured with the packaged model on the CPU: below 1e-15, in float32 and in bfloat16.
Left out: a proof for every device. The slack is measured, on these rows, in this run.
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
from dp_assets.privacy.mechanisms import largest_rounding_slack

# Any vocabulary has these ids. Long rows, short ones, one between, and one unit of two rows, so that units stand in
# different places of a micro-batch, beside units of their own width and of others.
PROBE_UNITS = (
    (TokenRow((3, 7), tuple(range(5, 25))),),
    (TokenRow((3,), (11,)),),
    (TokenRow((3, 7, 9), (8, 4, 4, 17, 2)), TokenRow((5,), (6, 21, 13))),
    (TokenRow((4, 9), tuple(range(25, 6, -1))),),
)
PROBE_ROWS = tuple(row for unit in PROBE_UNITS for row in unit)
# Losses so small that nothing is clipped, and so large that everything is.
SCALES = (1e4, 1e-4)

# Coarse rounding stays below this in every precision tried. More is a defect of the code, not of the precision.
COARSEST_ROUNDING = 0.3
OF_ADDING_UP = 1e-12  # more than the float64 sum of equal shares rounds
COPIES = 4  # of the longest row: kernels may choose how they split a row by its length and by how many there are
SMALL = 2 * max(map(len, PROBE_ROWS))  # tokens of a micro-batch, of which two copies of the fixed units fill three


class RoundingTooCoarse(PublicError, ValueError):
    """This model in this precision rounds more than can be allowed for. No private row was read."""


@dataclass(frozen=True)
class ProbeResult:
    """What was measured on public rows, by the names of the evidence.

    `largest_share` is the norm of the largest clipped gradient over the clip norm, `rounding_slack` what the sum of
    several differs by from the sum of each alone, over the largest of them.
    """

    largest_share: float
    rounding_slack: float


def probe_sensitivity(engine: GradientEngine, *, largest_batch: float, longest_row: int) -> ProbeResult:
    """Measure the engine of the run on the fixed rows, and on rows of `longest_row` tokens, as long as any of the run.

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
    """Whether anything may be computed more coarsely than in float32."""
    dtypes = {weight.dtype for weight in model.parameters()}
    as_fine = [dtype.is_floating_point and torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps for dtype in dtypes]
    return not all(as_fine) or torch.get_float32_matmul_precision() != "highest"


Unit = tuple[TokenRow, ...]


def _copied(unit: Unit, copies: int) -> list[tuple[TokenRow, str]]:
    """The rows of so many units that are alike, each with a name of its unit that no other unit has."""
    return [(row, f"probe-{hash(unit)}-{copy}") for copy in range(copies) for row in unit]


def _flat_sum(engine: GradientEngine, owned: Sequence[tuple[TokenRow, str]]) -> Tensor:
    """The clipped sum of rows and their units, float64, shape [parameters]."""
    exact_sum, _ = engine.clipped_sum([row for row, _ in owned], [unit for _, unit in owned])
    return torch.cat([tensor.flatten().cpu().double() for tensor in exact_sum.values()])


@contextmanager
def _public_adapter(model: nn.Module) -> Iterator[None]:
    """Within the context every tensor of the adapter holds the same small waves, whatever it held before."""
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
