"""What really happens to the model, seen from beside the training loop: the observations that DP-SGD's evidence states.

    clip             watched: which units were clipped, how many rows each gave, at which norm, and the exact sum
    optimiser        its own hooks: the steps it takes, and the gradients that it is handed
    every tensor     checksums: nothing but those steps changes anything

A tensor counts as noised if, in every step, the gradient handed to the optimiser is the exact sum plus the noise that
was drawn for this tensor in this step, over the normaliser, coordinate by coordinate. That is exact up to float32
rounding, so no step that keeps the plan is ever called different.

Exact sums and noise are compared in memory and forgotten. What a checkpoint keeps are counts, verdicts, the sum of
squares of all noise and SHA-256 digests of its draws: a noise that comes twice is noticed after a resume too, and none
can be replayed. Left out: a change of several values whose bits add up to the same integer.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dp_assets.generation.packing import TokenRow
from dp_assets.generation.per_unit import ClippingEvidence, Gradients, adapter_parameters
from dp_assets.privacy.mechanisms import GaussianNoise, PoissonSampler

# A gradient is handed over in float32, with 24 bits and nothing below 1e-38; sums before that are in float64, with 53.
HANDED_ROUNDING, SUM_ROUNDING, SMALLEST = 2.0**-20, 2.0**-45, 1e-30
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Clip = Callable[[Sequence[TokenRow], Sequence[str]], tuple[Gradients, ClippingEvidence]]


@dataclass
class Observations:
    """What a checkpoint carries on: everything seen so far, but for what the sampler and the noise count themselves."""

    steps: int = 0
    batches_as_drawn: bool = True
    most_rows_per_unit: int = 1
    l2_clip_norms: list[float] = field(default_factory=list)
    normaliser_kept: bool = True
    noise_energy: float = 0.0
    noised_tensors: list[str] | None = None  # None before the first step
    changed_elsewhere: list[str] = field(default_factory=list)


class Witness:
    """Watches one training. Hand it what acts, before anything happens; ask for `observed()` at the end.

    `normaliser` is the constant that the noisy sum is to be divided by.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        sampler: PoissonSampler,
        noise: GaussianNoise,
        normaliser: float,
    ) -> None:
        self._model, self._sampler, self._noise, self._normaliser = model, sampler, noise, normaliser
        self._parameters = adapter_parameters(model)
        self._seen = Observations()
        self._exact_sum: Gradients = {}
        self._checksums = self._all_checksums()
        optimizer.register_step_pre_hook(lambda *_: self._before_step())
        optimizer.register_step_post_hook(lambda *_: self._after_step())

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; the model holds its parameters already."""
        kept = dict(kept)
        self._sampler.samples_drawn = kept.pop("samples_drawn")
        self._noise.digests[:] = kept.pop("noise_digests")
        self._noise.coordinates_drawn = kept.pop("noise_coordinates")
        self._seen = Observations(**kept)
        self._checksums = self._all_checksums()

    def kept(self) -> dict[str, Any]:
        """What a checkpoint stores for `resume`: numbers, names and digests."""
        return dataclasses.asdict(self._seen) | {
            "samples_drawn": self._sampler.samples_drawn,
            "noise_digests": list(self._noise.digests),
            "noise_coordinates": self._noise.coordinates_drawn,
        }

    def watching(self, clip: Clip, unit_ids: KeysView[str]) -> Clip:
        """`clip`, of batches that should hold the sampled ones of `unit_ids`, each once."""

        def watched(rows: Sequence[TokenRow], clipped_ids: Sequence[str]) -> tuple[Gradients, ClippingEvidence]:
            exact_sum, clipping = clip(rows, clipped_ids)
            self._see_batch(clipped_ids, unit_ids)
            self._seen.l2_clip_norms = sorted({*self._seen.l2_clip_norms, clipping.l2_clip_norm})
            self._exact_sum = {name: tensor.detach().clone() for name, tensor in exact_sum.items()}
            return exact_sum, clipping

        return watched

    def observed(self) -> dict[str, Any]:
        """What the evidence says, by the names of `dpsgd_evidence`."""
        self._see_changes(self._all_checksums())
        seen = dataclasses.asdict(self._seen)
        kept = seen.pop("normaliser_kept")
        return seen | {
            "normalisers": (self._normaliser,) if kept else (),
            "noised_tensors": seen["noised_tensors"] or (),
            "trained_tensors": self._parameters.keys(),
            "num_parameters": sum(parameter.numel() for parameter in self._parameters.values()),
        }

    def _see_batch(self, clipped_ids: Sequence[str], unit_ids: KeysView[str]) -> None:
        rows_of = Counter(clipped_ids)
        self._seen.most_rows_per_unit = max(self._seen.most_rows_per_unit, *rows_of.values(), 1)
        as_drawn = rows_of.keys() == set(self._sampler.last_sample) and rows_of.keys() <= unit_ids
        from_all = self._sampler.last_population == len(unit_ids)
        self._seen.batches_as_drawn &= as_drawn and from_all

    def _before_step(self) -> None:
        """Compare what the optimiser is handed with what it ought to be."""
        self._see_changes(self._all_checksums(self._parameters))
        noised = set(self._parameters if self._seen.noised_tensors is None else self._seen.noised_tensors)
        handed_norm = noisy_norm = 0.0
        for name, exact, drawn in self._expected():
            handed = _flat(self._parameters[name].grad, like=exact)
            applied, noisy = handed * self._normaliser - exact, exact + drawn
            self._seen.noise_energy += float(applied.square().sum())
            handed_norm, noisy_norm = (
                handed_norm + float(handed.square().sum()),
                noisy_norm + float(noisy.square().sum()),
            )
            tolerance = HANDED_ROUNDING * noisy.abs() + SUM_ROUNDING * (exact.abs() + drawn.abs()) + SMALLEST
            if not bool(((applied - drawn).abs() <= tolerance).all()):
                noised.discard(name)
        self._seen.noised_tensors = sorted(noised & self._exact_sum.keys())
        self._seen.normaliser_kept &= _about(handed_norm * self._normaliser**2, noisy_norm)
        self._exact_sum = {}

    def _expected(self) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Name, exact sum and noise of each tensor, both flat float64; the last draw lies in the order of the sum."""
        drawn = torch.from_numpy(self._noise.last_draw)
        place = 0
        for name, tensor in self._exact_sum.items():
            exact = _flat(tensor, like=tensor)
            piece = drawn[place : place + len(exact)]
            place += len(exact)
            yield name, exact, piece if len(piece) == len(exact) else torch.full_like(exact, torch.nan)

    def _after_step(self) -> None:
        self._seen.steps += 1
        self._checksums |= self._all_checksums(self._parameters)

    def _see_changes(self, now: Mapping[str, int]) -> None:
        """Note the tensors that changed since the optimiser's last step."""
        changed = {name for name, checksum in now.items() if self._checksums.get(name) != checksum}
        self._seen.changed_elsewhere = sorted({*self._seen.changed_elsewhere, *changed})

    def _all_checksums(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """An integer for each of `tensors`, or for each parameter and buffer of the model."""
        if tensors is None:
            tensors = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        return {name: _checksum(tensor) for name, tensor in tensors.items()}


def _checksum(tensor: Tensor) -> int:
    """The sum of the bits, read as integers: one pass, whatever the device."""
    flat = tensor.detach().reshape(-1)
    return int(flat.view(INTEGERS[flat.element_size()]).sum(dtype=torch.int64))


def _flat(tensor: Tensor | None, *, like: Tensor) -> Tensor:
    """Float64 on the CPU; a missing gradient is a zero one."""
    return (
        torch.zeros(like.numel(), dtype=torch.float64) if tensor is None else tensor.detach().flatten().cpu().double()
    )


def _about(first: float, second: float) -> bool:
    return abs(first - second) <= 4 * HANDED_ROUNDING * second + SMALLEST
