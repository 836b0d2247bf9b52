"""What a mechanism says about its own run, so that the claim can be compared with what happened.

Every item is observed where the act happens: counted by the sampler, by the noise, by the optimiser's hooks, or
compared value by value. Only `unit` repeats what the caller says, for readers; what was observed of it is `population`
and `preparation`. The public part describes structure; in a run that keeps
its plan it is a function of public constants, so it may go to metadata. In a run that does not, a count may depend on
private rows, which is why a refusal names no numbers (`claim.py`). Whatever follows from private rows in a run that
keeps its plan is a verdict here, or lies in the restricted part (batch sizes, norms), which stays in the private zone
and is absent from `repr`.
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

from dp_assets.privacy.mechanisms import DiscreteGaussianNoise, GaussianNoise, PoissonSampler, name_of
from dp_assets.privacy.randomness import origin

FALSE_ALARM_EXPONENT = math.log(2e12)  # a verdict on the size of noise is wrong with probability at most 1e-12
OTHERWISE = "otherwise"  # the verdict on what differs
WITHIN_SPARE_STEPS = "within the spare steps"


@dataclass(frozen=True)
class Evidence:
    """`public` is JSON-serialisable and free of private data; `restricted` never leaves the private zone.

    `content` is the hash of what may be released, taken from what was observed (`artifacts.content_digest`).
    `noise` are digests of the noise that was drawn, to be compared with those of other releases; they are restricted.

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
        """This evidence with further public items, from whoever observed them."""
        return replace(self, public={**self.public, **public})


@dataclass(frozen=True)
class ObservedTraining:
    """What the run monitor observed of a training.

    Args:
      steps: the optimizer's own count of its updates in the result.
      batches_as_drawn: in every step, the clipped units were those that the sampler drew from all units.
      rows_of_their_units: in every step, the clipped row of each unit was the one drawn of its rows in the table.
      sums_within_clip: no clipped sum was longer than the clip norm times its units, which is all that a sum shows.
      most_rows_per_unit: in any step; 1 when no unit was drawn.
      l2_clip_norms, loss_normalizers, normalizers: the different values that were used.
      largest_share: norm of the largest clipped gradient of a public probe unit, over the clip norm.
      rounding_slack: how much the clipped sum of public probe units differs from the sum of the clipped probe units,
        over the largest of them.
      noise_energy: sum of squares of what was added, over all coordinates and steps.
      noised_tensors: those whose gradient, in every step, was the exact sum plus the noise drawn for them.
      updates_repeated: each step led where a second optimizer of public constants came with the gradients checked.
      changed_elsewhere: tensors of the model that anything but a step of the watched optimizer changed.
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
    """The evidence of DP-SGD. The caller adds `preparation` and `population`, which it sees at the table, puts a
    verdict on the `constants` in their place, and refuses `batches` and `changed_elsewhere` for what it saw there.

    Args:
      continuations: how often the run went on after an interruption. Each may have lost a step whose noise was drawn,
        so the account holds one step more for each. A private row may interrupt a run, so only the verdict is public.
      spare_steps: how many continuations the plan accounts for.
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
        "noised_tensors": fingerprint(observed.noised_tensors),
        "updates": "of noisy sums alone" if observed.updates_repeated else OTHERWISE,
        "constants": {"learning_rate": observed.learning_rate, "loss_normaliser": _the_only(observed.loss_normalizers)},
        "trained_tensors": fingerprint(observed.trained_tensors),
        "changed_elsewhere": fingerprint(observed.changed_elsewhere),
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
    """The evidence of a noisy histogram.

    A bin counts as noised when the released value is the exact one plus the noise drawn for it, which may be zero.

    Args:
      is_only_draw: since the table was opened, no other noise was drawn that this one may have been chosen from.
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
    """Whether the sum of squares of noise fits its standard deviation: a verdict that independent noise misses with
    probability at most 1e-12.

    Bounds of the chi-square distribution: Laurent and Massart (2000), Lemma 1. For n coordinates they lie at about
    n +- 10.6 sqrt(n): no noise at all shows from 114 coordinates on, a standard deviation wrong by 5% from 12,000 on.
    """
    if noise_stddev == 0:
        return "as stated"  # that nothing was added is seen tensor by tensor
    excess = energy / noise_stddev**2 - coordinates
    spread = 2 * math.sqrt(coordinates * FALSE_ALARM_EXPONENT)
    return "as stated" if -spread <= excess <= spread + 2 * FALSE_ALARM_EXPONENT else OTHERWISE


def verdict_on_continuations(continuations: int, spare_steps: int) -> str:
    """Whether a run went on after interruptions no more often than its plan accounts for."""
    return WITHIN_SPARE_STEPS if 0 <= continuations <= spare_steps else OTHERWISE


def fingerprint(names: Collection[str]) -> dict[str, Any]:
    """How many names there are, and the SHA-256 of the sorted names, one a line."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return {"count": len(names), "sha256": digest}


def _the_only(values: Collection[float]) -> float | str:
    """The one value that was used, or a verdict that says nothing about the others."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else OTHERWISE
