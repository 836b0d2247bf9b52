"""Evidence: what a mechanism observed of its own run, to be compared with the plan.

Every item is observed where it happens: counted by the sampler or the noise, seen by the hooks of the optimizer, or
compared value by value. Only `unit` repeats what the caller says, for readers; the observations behind it are
`population` and `preparation`.

- The public part describes structure. In a run that keeps its plan it is a function of public constants, so it may
  become metadata. In a run that does not, a count may depend on private rows, so a refusal names no numbers
  (`claim.py`).
- Where an item follows from private rows even in a run that keeps its plan, the public part holds a verdict only.
- The restricted part (batch sizes, norms) stays in the private zone and is absent from `repr`.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dp_assets.privacy.randomness import origin
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise, PoissonSampler, name_of

FALSE_ALARM_EXPONENT = math.log(2e12)  # a verdict on the size of noise is wrong with probability at most 1e-12
OTHERWISE = "otherwise"  # the verdict on what differs
WITHIN_SPARE_STEPS = "within the spare steps"


@dataclass(frozen=True)
class Evidence:
    """What a run observed. `public` is JSON and free of private data; `restricted` never leaves the private zone.

    `content` is the hash of what may be released, taken from what was observed (`artifacts.content_digest`). `noise`
    holds digests of the drawn noise, to be compared with those of other releases; they are restricted.

    Raises:
      ValueError: `public` holds something JSON has no form for.
    """

    public: Mapping[str, Any]
    restricted: Mapping[str, Any] = field(repr=False)
    content: str = ""
    noise: Collection[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.public), allow_nan=False)
        except (TypeError, ValueError):
            # The cause would quote the value.
            raise ValueError("Evidence.public must be JSON: text, finite numbers, booleans, lists, objects") from None

    def also(self, **public: Any) -> "Evidence":
        """Return this evidence with further public items, from whoever observed them."""
        return replace(self, public={**self.public, **public})


@dataclass(frozen=True)
class ObservedTraining:
    """What the run monitor observed of a training.

    Args:
      steps: the number of updates in the result, as the optimizer counts them.
      batches_as_drawn: in every step, the clipped units were those that the sampler drew from all units.
      rows_of_their_units: in every step, the clipped row of each unit was the one drawn from its rows in the table.
      sums_within_clip: no clipped sum was longer than the clip norm times its number of units. A sum shows no more.
      most_rows_per_unit: the largest number in any step; 1 when no unit was drawn.
      l2_clip_norms, loss_normalizers, normalizers: the distinct values that were used.
      largest_share: norm of the largest clipped gradient of a public probe unit, over the clip norm.
      rounding_slack: norm of the difference between the clipped sum of public probe units and the sum of their
        gradients clipped one unit at a time, over the largest of these gradients.
      noise_energy: sum of squares of what was added, over all coordinates and steps.
      noised_tensors: tensors whose gradient, in every step, was the exact sum plus the noise drawn for them.
      trained_tensors: tensors that the optimizer updates.
      changed_elsewhere: tensors of the model that changed by anything but a step of the monitored optimizer.
      updates_repeated: in each step, a second optimizer with public constants made the same update from the checked
        gradients.
      num_parameters: the number of trained coordinates.
      learning_rate: the learning rate that the optimizer used.
    """

    steps: int
    batches_as_drawn: bool
    rows_of_their_units: bool
    sums_within_clip: bool
    most_rows_per_unit: int
    l2_clip_norms: Collection[float]
    loss_normalizers: Collection[float]
    normalizers: Collection[float]
    largest_share: float
    rounding_slack: float
    noise_energy: float
    noised_tensors: Collection[str]
    trained_tensors: Collection[str]
    changed_elsewhere: Collection[str]
    updates_repeated: bool
    num_parameters: int
    learning_rate: float


def dpsgd_evidence(
    observed: ObservedTraining,
    sampler: PoissonSampler,
    noise: GaussianNoise,
    *,
    unit: str,
    continuations: int,
    spare_steps: int,
    restricted: Mapping[str, Any],
) -> Evidence:
    """Return the evidence of DP-SGD.

    The caller adds `preparation` and `population`, which it observes at the table. It replaces the `constants` by a
    verdict, and sets `batches` and `changed_elsewhere` to a refusal where its own observations demand one.

    Args:
      observed: what the run monitor observed.
      sampler, noise: the objects that drew the samples and the noise.
      unit: the privacy unit, as the caller states it.
      continuations: how often the run was resumed. Each resume may have lost a step whose noise was drawn, so the
        account holds one more step for each. A private row may interrupt a run, so only the verdict is public.
      spare_steps: how many continuations the plan accounts for.
      restricted: observations that stay in the private zone.
    """
    public = {
        "mechanism": "dpsgd",
        "unit": unit,
        "sampler": name_of(sampler),
        "sampling_probability": sampler.sampling_probability,
        "sampling_randomness": origin(sampler.source),
        "samples_drawn": sampler.samples_drawn,
        "batches": "as drawn" if observed.batches_as_drawn else OTHERWISE,
        "rows": "of their units" if observed.rows_of_their_units else OTHERWISE,
        "sums": "within the clip" if observed.sums_within_clip else OTHERWISE,
        "rows_per_sampled_unit": observed.most_rows_per_unit,
        "l2_clip_norm": _the_only(observed.l2_clip_norms),
        "largest_share": observed.largest_share,
        "rounding_slack": observed.rounding_slack,
        "noise": name_of(noise),
        "noise_stddev": noise.noise_stddev,
        "noise_randomness": origin(noise.source),
        "noise_draws": len(noise.digests),
        "distinct_noise_draws": len(set(noise.digests)),
        "noise_coordinates": noise.coordinates_drawn,
        "noise_size": noise_size(
            observed.noise_energy, observed.steps * observed.num_parameters, noise_stddev=noise.noise_stddev
        ),
        "normaliser": _the_only(observed.normalizers),
        "steps": observed.steps,
        "continuations": verdict_on_continuations(continuations, spare_steps),
        "noised_tensors": digest_of_names(observed.noised_tensors),
        "updates": "of noisy sums alone" if observed.updates_repeated else OTHERWISE,
        "constants": {"learning_rate": observed.learning_rate, "loss_normaliser": _the_only(observed.loss_normalizers)},
        "trained_tensors": digest_of_names(observed.trained_tensors),
        "changed_elsewhere": digest_of_names(observed.changed_elsewhere),
        "num_parameters": observed.num_parameters,
    }
    return Evidence(public=public, restricted=restricted, noise=tuple(noise.digests))


@dataclass(frozen=True)
class CountedVotes:
    """Exact votes, and what a second count says of them. All of it is private.

    Args:
      exact: the votes for each bin.
      ballots: the votes that were counted, each a unit id and a bin.
      is_everybody: all units of the table voted that have something to vote with, and no others.
      are_own: each vote follows from the unit's rows alone, of the table and of a probe of public units.
      are_stored_bins: the votes were counted, both times, for the bins that were stored before the table was opened.
    """

    exact: npt.NDArray[np.int64] = field(repr=False)
    ballots: Sequence[tuple[str, int]] = field(repr=False)
    is_everybody: bool
    are_own: bool
    are_stored_bins: bool


def votes_evidence(
    counted: CountedVotes,
    released: npt.NDArray[np.int64],
    noise: DiscreteGaussianNoise,
    *,
    is_only_draw: bool,
    preparation: str,
) -> Evidence:
    """Return the evidence of a noisy histogram.

    A bin counts as noised when the released value is the exact one plus the noise drawn for it, which may be zero.

    Args:
      counted: the exact votes, the ballots behind them, and what the second count found.
      released: the noisy votes, int64 (num_bins,).
      noise: the object that drew the noise.
      is_only_draw: whether it was the only draw of noise since the rows were opened.
      preparation: the verdict on the preparation of the rows, as their table carries it.
    """
    exact, ballots = counted.exact, counted.ballots
    is_whole = len(released) == len(exact) == len(noise.last_draw)
    by_bin, by_unit = Counter(bin_id for _, bin_id in ballots), Counter(unit_id for unit_id, _ in ballots)
    is_sum = exact.tolist() == [by_bin[bin_id] for bin_id in range(len(exact))]
    public = {
        "mechanism": "votes",
        "preparation": preparation,
        "population": "units" if counted.is_everybody else OTHERWISE,
        "bins": "as stored" if counted.are_stored_bins else OTHERWISE,
        "num_bins": len(released),
        "noise": name_of(noise),
        "noise_stddev": noise.noise_stddev,
        "noise_randomness": origin(noise.source) if is_only_draw else OTHERWISE,
        "noise_coordinates": noise.coordinates_drawn,
        "noised_bins": int((released - exact == noise.last_draw).sum()) if is_whole else 0,
        "max_votes_per_unit": max(by_unit.values(), default=1),
        "votes": "of each unit alone" if counted.are_own else OTHERWISE,
        "votes_counted": "one a ballot" if is_sum else OTHERWISE,
    }
    return Evidence(public=public, restricted={}, noise=tuple(noise.digests))


def noise_size(energy: float, coordinates: int, *, noise_stddev: float) -> str:
    """Return a verdict on whether the sum of squares of the noise fits its standard deviation.

    Independent noise fails it with probability at most 1e-12. The bounds of the chi-square distribution are those of
    Laurent and Massart (2000), Lemma 1. For n coordinates they lie at about n +- 10.6 sqrt(n). So missing noise is
    detected from 114 coordinates on, and a standard deviation that is wrong by 5% from 12,000 on.
    """
    if noise_stddev == 0:
        return "as stated"  # a comparison tensor by tensor detects anything added
    excess = energy / noise_stddev**2 - coordinates
    spread = 2 * math.sqrt(coordinates * FALSE_ALARM_EXPONENT)
    return "as stated" if -spread <= excess <= spread + 2 * FALSE_ALARM_EXPONENT else OTHERWISE


def verdict_on_continuations(continuations: int, spare_steps: int) -> str:
    """Return a verdict on whether a run was resumed at most as often as its plan accounts for."""
    return WITHIN_SPARE_STEPS if 0 <= continuations <= spare_steps else OTHERWISE


def digest_of_names(names: Collection[str]) -> dict[str, Any]:
    """Return the number of names, and the SHA-256 of the sorted names, one per line."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return {"count": len(names), "sha256": digest}


def _the_only(values: Collection[float]) -> float | str:
    """Return the one value that was used, or a verdict that reveals nothing of several values."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else OTHERWISE
