"""The plan: one frozen value that sampler, clipping, noise and the accounted event are taken from.

Everything in it is a public constant. The plan yields its own event, so a claim cannot describe anything but what was
planned, and the evidence that a mechanism returns is compared with the plan afterwards (`claim.py`). The noise
multiplier of DP-SGD is calibrated with the histogram and the spare steps included in the account, and rounded up. For
any constants, calibration either finishes within seconds and bounded memory or refuses (`UnreachableTarget`).
"""

import functools
import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from dp_accounting import ComposedDpEvent, DpEvent, NonPrivateDpEvent
from scipy.optimize import brentq

from dp_assets.privacy import accounting
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.events import DiscreteGaussianDpEvent, dpsgd_event
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.losses import Unaccountable, refuse_unbounded, smallest_delta
from dp_assets.privacy.units import PrivacyUnit

GENERATOR = "dp_generator"
HISTOGRAM = "dp_histogram"

NOISE_MULTIPLIER_DECIMALS = 4
SMALLEST_NOISE_MULTIPLIER, LARGEST_NOISE_MULTIPLIER = 0.2, 200.0
CALIBRATION_STEP = 2e-5
"""Tolerance on the logarithm of the noise multiplier: a fifth of the last decimal of a multiplier of 1."""
MOST_CORRECTIONS, CORRECTION = 20, 1e-4
LEAST_CLIP_NORM = 1e-9
LEAST_EPSILON, MOST_EPSILON = 1e-12, 1e308
LEVEL_NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")
FAILURES_A_CORPUS = 0.1
"""Largest expected number of units whose rows are revealed, by a mechanism that reveals each with probability delta."""


class UnreachableTarget(PublicError, ValueError):
    """No noise multiplier in the allowed range is certified to meet the target epsilon."""


@dataclass(frozen=True)
class DpSgdPlan:
    """DP-SGD: `steps` noisy updates, and `spare_steps` more for resumes after a crash. All of them are accounted.

    `expected_batch_size` divides every noisy sum. It is a public constant, never a count of the corpus.
    """

    sampling_probability: float
    steps: int
    spare_steps: int
    l2_clip_norm: float
    noise_multiplier: float
    expected_batch_size: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_probability <= 1:
            raise ValueError("sampling_probability must lie in (0, 1]")
        if self.steps < 1 or self.spare_steps < 0 or self.expected_batch_size < 1:
            raise ValueError("steps and expected_batch_size must be at least 1, spare_steps at least 0")
        if not LEAST_CLIP_NORM <= self.l2_clip_norm <= 1 / LEAST_CLIP_NORM or self.noise_multiplier < 0:
            raise ValueError(
                f"l2_clip_norm must lie between {LEAST_CLIP_NORM:g} and {1 / LEAST_CLIP_NORM:g}, where squares of"
                " float32 neither vanish nor overflow, and noise_multiplier must be at least 0"
            )

    @property
    def implied_units(self) -> float:
        """The number of units whose expected sample has `expected_batch_size` units: a guess from public constants."""
        return self.expected_batch_size / self.sampling_probability

    @property
    def event(self) -> DpEvent:
        """The event of all steps, spare steps included."""
        if self.noise_multiplier == 0:
            return NonPrivateDpEvent()
        return dpsgd_event(
            sampling_probability=self.sampling_probability,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps + self.spare_steps,
        )


@dataclass(frozen=True)
class VotesPlan:
    """One integer vote per unit, discrete Gaussian noise of `noise_stddev` votes on each of `num_bins` bins."""

    num_bins: int
    noise_stddev: float

    def __post_init__(self) -> None:
        if self.num_bins < 2 or self.noise_stddev < 0:
            raise ValueError("num_bins must be at least 2 and noise_stddev at least 0")

    @property
    def event(self) -> DpEvent:
        """The event of the release; one unit changes one bin by one vote."""
        return NonPrivateDpEvent() if self.noise_stddev == 0 else DiscreteGaussianDpEvent(self.noise_stddev)


@dataclass(frozen=True)
class PrivacyPlan:
    """Everything that decides the guarantee of one privacy level."""

    level: str
    target_epsilon: float
    delta: float
    unit: PrivacyUnit
    max_rows_per_unit: int
    dpsgd: DpSgdPlan
    votes: VotesPlan

    @property
    def event(self) -> DpEvent:
        """The event of both mechanisms together."""
        return ComposedDpEvent([self.dpsgd.event, self.votes.event])

    @property
    def events(self) -> dict[str, DpEvent]:
        """The event of each mechanism, by the name of the asset that runs it."""
        return {GENERATOR: self.dpsgd.event, HISTOGRAM: self.votes.event}

    @property
    def is_private(self) -> bool:
        """Whether noise is added at all."""
        return self.level != NO_DP

    @property
    def largest_batch(self) -> float:
        """The bound on the units of one step: see the function `largest_batch`."""
        return largest_batch(self.dpsgd, delta=self.delta)

    @functools.cached_property
    def epsilon(self) -> float:
        """The certified joint epsilon, rounded up."""
        return accounting.epsilon(self.event, self.delta)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value with every constant of the plan; an infinite target is null."""
        form = asdict(self)
        form["target_epsilon"] = None if math.isinf(self.target_epsilon) else self.target_epsilon
        return form

    @property
    def digest(self) -> str:
        """A hash of every constant of the plan."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def largest_batch(plan: DpSgdPlan, *, delta: float) -> float:
    """Return a public bound on the units of a step, exceeded with probability at most 1e-12.

    - The bound is never below the expected batch.
    - It assumes the largest number of units for which `delta` is sensible (`largest_delta`). So no unit is counted, and
      no further assumption is needed.
    - It is Bernstein's inequality for a sum of independent draws, whose variance is at most its mean.
    """
    units = FAILURES_A_CORPUS / delta
    mean, exponent = plan.sampling_probability * units, math.log(1e12)
    beyond = 2 / 3 * exponent + math.sqrt(2 * mean * exponent)
    return max(float(plan.expected_batch_size), min(units, mean + beyond))


def target_of(level: str) -> float:
    """Return the target epsilon that a level names; infinity for `no-dp`.

    Raises:
      ValueError: the name is neither `no-dp` nor `eps-` and a positive number in ASCII digits, without an exponent.
    """
    if level == NO_DP:
        return math.inf
    number = level.removeprefix("eps-")
    is_number = level.startswith("eps-") and LEVEL_NUMBER.fullmatch(number) is not None
    target = float(number) if is_number else math.nan
    if not 0 < target < math.inf:
        raise ValueError(
            f"level {level!r} must be 'no-dp' or 'eps-' and a positive number in plain digits, for example 'eps-2.86'"
        )
    return target


def largest_delta(units: float) -> float:
    """Return the largest sensible delta for a mechanism over at most this many units."""
    return FAILURES_A_CORPUS / units


def make_plan(
    level: str,
    *,
    delta: float,
    unit: PrivacyUnit,
    max_rows_per_unit: int,
    dpsgd: DpSgdPlan,
    votes: VotesPlan,
) -> PrivacyPlan:
    """Return the plan of a level, with the least DP-SGD noise whose joint account meets the level's target.

    Args:
      dpsgd: its constants; the noise multiplier is replaced.
      votes: its constants; at the level without noise, the noise is replaced too.

    Raises:
      UnreachableTarget: the histogram alone exceeds the target, the noise multiplier exceeds its largest allowed value,
        or the constants lie beyond what can be accounted for.
      ValueError: a constant is out of range.
    """
    if not 0 < delta < 1:
        raise ValueError("delta must lie in (0, 1)")
    target = target_of(level)
    unprotected = level == NO_DP
    plan = PrivacyPlan(
        level=level,
        target_epsilon=target,
        delta=delta,
        unit=unit,
        max_rows_per_unit=max_rows_per_unit,
        dpsgd=replace(dpsgd, noise_multiplier=0.0),
        votes=replace(votes, noise_stddev=0.0) if unprotected else votes,
    )
    return plan if unprotected else calibrated(plan)


@functools.lru_cache(maxsize=64)
def calibrated(plan: PrivacyPlan) -> PrivacyPlan:
    """Return `plan` with the least noise multiplier, rounded up to four decimals, whose epsilon meets the target.

    Raises:
      UnreachableTarget: see `make_plan`.
    """
    try:
        _refuse_unreachable(plan)
        return _certified(plan, accounting.round_up(_least_noise(plan), NOISE_MULTIPLIER_DECIMALS))
    except Unaccountable as refusal:
        raise UnreachableTarget(f"{plan.level} cannot be certified: {refusal}") from None


def _least_noise(plan: PrivacyPlan) -> float:
    """Return the noise multiplier at which the coarser account meets the target, to a relative `CALIBRATION_STEP`."""
    low, high = (math.log(noise) for noise in (SMALLEST_NOISE_MULTIPLIER, LARGEST_NOISE_MULTIPLIER))
    if _excess(plan, low) <= 0:
        return SMALLEST_NOISE_MULTIPLIER
    return math.exp(brentq(functools.partial(_excess, plan), low, high, xtol=CALIBRATION_STEP))


def _excess(plan: PrivacyPlan, log_noise: float) -> float:
    """Return the logarithm of joint epsilon over target. It is nearly linear in the logarithm of the noise."""
    joint = _joint_epsilon(plan, math.exp(log_noise))
    return math.log(min(max(joint, LEAST_EPSILON), MOST_EPSILON)) - math.log(plan.target_epsilon)


def _refuse_unreachable(plan: PrivacyPlan) -> None:
    """Refuse a target that cannot be met, naming the constant to change, before calibration."""
    refuse_unbounded(_with_noise(plan, LARGEST_NOISE_MULTIPLIER).event)
    uses = plan.dpsgd.steps + plan.dpsgd.spare_steps + 1
    if plan.delta < (least := smallest_delta(uses)):
        raise UnreachableTarget(
            f"{plan.level} cannot be certified: over this many steps the accountant's precision needs a corpus.delta of"
            f" at least {least:.0e}; raise corpus.delta or lower generator.steps"
        )
    votes = accounting.coarse_epsilon(plan.votes.event, plan.delta)
    if votes > plan.target_epsilon:
        raise UnreachableTarget(
            f"{plan.level} cannot be met: the histogram alone costs epsilon {votes:g}; raise votes.noise_stddev or"
            " choose a larger level"
        )
    if _joint_epsilon(plan, LARGEST_NOISE_MULTIPLIER) > plan.target_epsilon:
        raise UnreachableTarget(
            f"{plan.level} cannot be met: even a noise multiplier of {LARGEST_NOISE_MULTIPLIER:g} gives more; raise"
            " votes.noise_stddev, lower generator.steps or generator.sampling_probability, or choose a larger level"
        )


def _joint_epsilon(plan: PrivacyPlan, noise_multiplier: float) -> float:
    event = _with_noise(plan, noise_multiplier).event
    return accounting.coarse_epsilon(event, plan.delta)


def _with_noise(plan: PrivacyPlan, noise_multiplier: float) -> PrivacyPlan:
    return replace(plan, dpsgd=replace(plan.dpsgd, noise_multiplier=noise_multiplier))


def _certified(plan: PrivacyPlan, noise_multiplier: float) -> PrivacyPlan:
    """Raise the noise in small steps until the finer account meets the target too. Usually the first value does."""
    for _ in range(MOST_CORRECTIONS):
        certified = _with_noise(plan, noise_multiplier)
        if certified.epsilon <= plan.target_epsilon:
            return certified
        noise_multiplier = accounting.round_up(noise_multiplier * (1 + CORRECTION), NOISE_MULTIPLIER_DECIMALS)
    raise UnreachableTarget(f"{plan.level} cannot be certified at the finer account; choose a larger level")
