"""Observes sampling, clipping, noise and parameter updates, and records what happened as evidence.

    clipped sum      reported by the loop: the units, their rows, the constants of clipping, and the sum
    optimizer        observed by hooks: the gradients it receives, and the result of each step, compared with a replica
    every tensor     compared: nothing but the optimizer's steps may change it

A tensor counts as noised if, in every step, the gradient given to the optimizer is bit for bit (exact sum + noise) /
normalizer, with the noise that was drawn for this tensor in this step. The replica (`replica.py`) steps with the same
gradients and the public constants of the optimizer, and the parameters must be equal bit for bit. Both comparisons
repeat the operations of the loop, so a step that follows the plan is never reported as different.

Exact sums and noise are compared in memory and not kept. A checkpoint keeps counts, verdicts, the sum of squares of all
noise, and SHA-256 digests of the draws and of the replica. The digests detect a repeated draw, also after a resume, and
no draw can be recomputed from them. Left out: a change of a frozen tensor that is undone before the last comparison.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dp_assets.dpsgd.clipping import ClippingEvidence, Gradients, adapter_parameters
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.private_rows import Picks, PrivateRows
from dp_assets.dpsgd.replica import NewOptimizer, Replica, digests_of, same_bits, tensors_of
from dp_assets.dpsgd.sensitivity_probe import ProbeResult
from dp_assets.privacy.evidence import ObservedTraining
from dp_assets.privacy.randomness import origin
from dp_assets.privacy.sampling_and_noise import GaussianNoise, PoissonSampler, name_of

HANDED_ROUNDING, SMALLEST = 2.0**-20, 1e-30  # relative and absolute tolerance for norms of float32 gradients

WATCHED_FROM, WATCHED_TO = "watched_from", "watched_to"
"""Under these names the restricted evidence says which tensors the monitor started from, and where they led."""


@dataclass
class Observations:
    """All observations so far, except those that the sampler and the noise count themselves.

    Checkpoints store these field names, so the names must not change.
    """

    steps: int = 0
    batches_as_drawn: bool = True
    rows_of_their_units: bool = True
    sums_within_clip: bool = True
    most_rows_per_unit: int = 1
    l2_clip_norms: list[float] = field(default_factory=list)
    loss_normalisers: list[float] = field(default_factory=list)
    normaliser_kept: bool = True
    noise_energy: float = 0.0
    noised_tensors: list[str] | None = None  # None before the first step
    updates_repeated: bool = True
    parts: list[list[Any]] = field(default_factory=list)  # the distinct `_parts()` of all processes
    largest_share: float = 0.0
    rounding_slack: float = 0.0
    changed_elsewhere: list[str] = field(default_factory=list)


class RunMonitor:
    """Observes one training. Create it before the first step, and call `observed()` after the last.

    Args:
      model: the model with the adapter in training.
      optimizer: the optimizer of the training, on which hooks are registered.
      new_optimizer: makes the replica's optimizer, in the way that `optimizer` was made.
      sampler: the sampler of the training. Its own record of samples is read.
      noise: the noise of the training. Its own record of draws is read.
      normalizer: the constant that the plan divides the noisy sum by.
      probed: the result of the sensitivity probe in this process.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        new_optimizer: NewOptimizer,
        sampler: PoissonSampler,
        noise: GaussianNoise,
        normalizer: float,
        probed: ProbeResult,
    ) -> None:
        self._model, self._sampler, self._noise, self._normalizer = model, sampler, noise, normalizer
        self._parameters = adapter_parameters(model)
        self._replica = Replica(self._parameters, new_optimizer)
        self._seen = Observations(parts=[self._parts()], **dataclasses.asdict(probed))
        self._steps_before = 0
        self._exact_sum: Gradients = {}
        self._frozen = self._frozen_digests()
        self._private_rows: PrivateRows
        self._unit_ids: KeysView[str] = {}.keys()
        self.watched_from: Mapping[str, str] = {}  # digests of all tensors, set by `begin`
        optimizer.register_step_pre_hook(lambda *_: self._before_step())
        optimizer.register_step_post_hook(lambda *_: self._after_step())

    def resume(self, kept: Mapping[str, Any], *, optimizer: Mapping[str, Any]) -> None:
        """Continue from the observations that a checkpoint kept.

        Args:
          kept: what `kept()` returned.
          optimizer: the optimizer state of the same checkpoint. The model already holds its parameters.
        """
        kept = dict(kept)
        self._replica.restore(self._parameters, optimizer)
        is_as_kept = self._replica.digest == kept.pop("replica")
        self._sampler.samples_drawn = kept.pop("samples_drawn")
        self._noise.digests[:] = kept.pop("noise_digests")
        self._noise.coordinates_drawn = kept.pop("noise_coordinates")
        now, self._seen = self._seen, Observations(**kept)
        self._seen.parts += [parts for parts in now.parts if parts not in self._seen.parts]
        self._seen.largest_share = max(self._seen.largest_share, now.largest_share)
        self._seen.rounding_slack = max(self._seen.rounding_slack, now.rounding_slack)
        self._seen.updates_repeated &= is_as_kept

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint stores for `resume`: numbers, names and digests."""
        return dataclasses.asdict(self._seen) | {
            "samples_drawn": self._sampler.samples_drawn,
            "noise_digests": list(self._noise.digests),
            "noise_coordinates": self._noise.coordinates_drawn,
            "replica": self._replica.digest,
        }

    def begin(self, private_rows: PrivateRows, unit_ids: KeysView[str]) -> None:
        """Start comparing batches: each must hold the sampled units of all `unit_ids`, with rows of `private_rows`."""
        self.watched_from = self._frozen | digests_of(self._replica.parameters)
        self._steps_before = self._seen.steps
        self._private_rows, self._unit_ids = private_rows, unit_ids

    def observe_clipped_sum(
        self, rows: Sequence[TokenRow], unit_ids: Sequence[str], exact_sum: Gradients, clipping: ClippingEvidence
    ) -> None:
        """Record a clipped sum before noise is added. A step without this call counts as a step without noise."""
        self._see_batch(unit_ids)
        steps_here = self._seen.steps - self._steps_before
        self._seen.rows_of_their_units &= self._private_rows.match_stored_rows(
            rows, unit_ids, self._picks(), steps_here
        )
        self._seen.l2_clip_norms = sorted({*self._seen.l2_clip_norms, clipping.l2_clip_norm})
        self._seen.loss_normalisers = sorted({*self._seen.loss_normalisers, clipping.loss_normalizer})
        self._exact_sum = {name: tensor.detach().clone() for name, tensor in exact_sum.items()}
        norm = sum(float(tensor.double().square().sum()) for tensor in self._exact_sum.values()) ** 0.5
        self._seen.sums_within_clip &= norm <= len(set(unit_ids)) * clipping.l2_clip_norm

    def observed(self) -> ObservedTraining:
        """Return the observations from which the evidence is made."""
        self._see_changes(self._frozen_digests())
        seen = self._seen
        return ObservedTraining(
            steps=seen.steps,
            batches_as_drawn=seen.batches_as_drawn and len(seen.parts) == 1,  # evidence names those of the last process
            rows_of_their_units=seen.rows_of_their_units,
            sums_within_clip=seen.sums_within_clip,
            most_rows_per_unit=seen.most_rows_per_unit,
            l2_clip_norms=tuple(seen.l2_clip_norms),
            loss_normalizers=tuple(seen.loss_normalisers),
            normalizers=(self._normalizer,) if seen.normaliser_kept else (),
            largest_share=seen.largest_share,
            rounding_slack=seen.rounding_slack,
            noise_energy=seen.noise_energy,
            noised_tensors=tuple(seen.noised_tensors or ()),
            trained_tensors=tuple(self._parameters),
            changed_elsewhere=tuple(seen.changed_elsewhere),
            updates_repeated=seen.updates_repeated,
            num_parameters=sum(parameter.numel() for parameter in self._parameters.values()),
            learning_rate=self._replica.optimizer.defaults["lr"],
        )

    def weights(self) -> dict[str, Tensor]:
        """Return the adapter's weights after the monitored steps: the only values that may be released."""
        return {name: parameter.detach() for name, parameter in self._replica.parameters.items()}

    def _parts(self) -> list[Any]:
        """Return this process's sampler, noise, normalizer and learning rate. A continuation must have the same."""
        sampler, noise = self._sampler, self._noise
        return [
            *(name_of(sampler), origin(sampler.source), sampler.sampling_probability),
            *(name_of(noise), origin(noise.source), noise.noise_stddev),
            *(self._normalizer, self._replica.optimizer.defaults["lr"]),
        ]

    def _see_batch(self, clipped_ids: Sequence[str]) -> None:
        unit_ids = self._unit_ids
        rows_of = Counter(clipped_ids)
        self._seen.most_rows_per_unit = max(self._seen.most_rows_per_unit, *rows_of.values(), 1)
        as_drawn = rows_of.keys() == set(self._sampler.last_sample) and rows_of.keys() <= unit_ids
        population = self._sampler.last_population
        from_all = len(population) == len(unit_ids) and unit_ids <= set(population)
        self._seen.batches_as_drawn &= as_drawn and from_all

    def _picks(self) -> Picks:
        """Return the row that the sampler picked for each unit; nothing if there is not exactly one pick for each."""
        picks = self._sampler.last_picks
        is_one_each = len(picks) == len(self._sampler.last_sample)
        return {unit_id: (index, size) for unit_id, index, size in picks} if is_one_each else {}

    def _before_step(self) -> None:
        """Compare the gradients given to the optimizer with (exact sum + noise) / normalizer."""
        self._see_changes({})
        noised = set(self._parameters if self._seen.noised_tensors is None else self._seen.noised_tensors)
        handed_norm = noisy_norm = 0.0
        for name, exact, drawn in self._expected():
            parameter, noisy = self._parameters[name], exact + drawn
            handed = _flat(parameter.grad, like=exact)
            self._seen.noise_energy += float((handed * self._normalizer - exact).square().sum())
            handed_norm += float(handed.square().sum())
            noisy_norm += float(noisy.square().sum())
            expected = (noisy / self._normalizer).to(parameter)
            if parameter.grad is None or not same_bits(parameter.grad, expected):
                noised.discard(name)
        self._seen.noised_tensors = sorted(noised & self._exact_sum.keys())
        self._seen.normaliser_kept &= _about(handed_norm * self._normalizer**2, noisy_norm)
        self._exact_sum = {}
        self._replica.take({name: parameter.grad for name, parameter in self._parameters.items()})

    def _expected(self) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Yield name, exact sum and noise of each tensor, both flat float64. The last draw is in the order of the sum.

        The noise is NaN for a tensor that the draw is too short for.
        """
        drawn = torch.from_numpy(self._noise.last_draw)
        offset = 0
        for name, tensor in self._exact_sum.items():
            exact = _flat(tensor, like=tensor)
            piece = drawn[offset : offset + len(exact)]
            offset += len(exact)
            yield name, exact, piece if len(piece) == len(exact) else torch.full_like(exact, torch.nan)

    def _after_step(self) -> None:
        """Take the same step with the replica, and compare the parameters."""
        self._seen.steps += 1
        self._replica.step()
        self._seen.updates_repeated &= not self._replica.differing(self._parameters)
        self._replica.follow(self._parameters)

    def _see_changes(self, now: Mapping[str, str]) -> None:
        """Record the tensors that changed since the optimizer's last step.

        All tensors of the adapter are compared, and those frozen tensors whose current digests are in `now`.
        """
        frozen = {name for name, digest in now.items() if self._frozen.get(name) != digest}
        changed = frozen | self._replica.differing(self._parameters)
        self._seen.changed_elsewhere = sorted({*self._seen.changed_elsewhere, *changed})
        self._replica.follow(self._parameters)

    def _frozen_digests(self) -> dict[str, str]:
        """Return a digest of each buffer of the model and of each parameter that is not trained."""
        return digests_of({name: tensor for name, tensor in tensors_of(self._model) if name not in self._parameters})


def _flat(tensor: Tensor | None, *, like: Tensor) -> Tensor:
    """Return the tensor flat, as float64 on the CPU; zeros for a missing gradient."""
    return (
        torch.zeros(like.numel(), dtype=torch.float64) if tensor is None else tensor.detach().flatten().cpu().double()
    )


def _about(first: float, second: float) -> bool:
    return abs(first - second) <= 4 * HANDED_ROUNDING * second + SMALLEST
