"""The plan: one frozen value from which sampler, clipping, noise and the accounted event are all taken.

Everything in it is a public constant. It yields its own event, so a claim cannot describe something other than what
ran; the evidence a mechanism returns is compared with it afterwards (`claim.py`). The noise multiplier of DP-SGD is
calibrated with the histogram and the spare steps inside the account, and rounded up.
"""

import functools
import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from dp_accounting import ComposedDpEvent, DpEvent, NonPrivateDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import DiscreteGaussianDpEvent, dpsgd_event
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.units import PrivacyUnit

GENERATOR = "dp_generator"
HISTOGRAM = "dp_histogram"

NOISE_MULTIPLIER_DECIMALS = 4
SMALLEST_NOISE_MULTIPLIER, LARGEST_NOISE_MULTIPLIER = 0.2, 200.0


class UnreachableTarget(ValueError):
    """No noise multiplier in the allowed range meets the target epsilon."""


@dataclass(frozen=True)
class DpSgdPlan:
    """DP-SGD: `steps` noisy updates, `spare_steps` more for resumes after a crash, all of them accounted.

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
        if self.l2_clip_norm <= 0 or self.noise_multiplier < 0:
            raise ValueError("l2_clip_norm must be positive and noise_multiplier at least 0")

    @property
    def event(self) -> DpEvent:
        """The event of all steps, spare ones included."""
        if self.noise_multiplier == 0:
            return NonPrivateDpEvent()
        return dpsgd_event(
            sampling_probability=self.sampling_probability,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps + self.spare_steps,
        )


@dataclass(frozen=True)
class VotesPlan:
    """One integer vote a unit, discrete Gaussian noise of `noise_stddev` votes on each of `num_bins` bins."""

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
        """Both mechanisms together."""
        return ComposedDpEvent([self.dpsgd.event, self.votes.event])

    @property
    def events(self) -> dict[str, DpEvent]:
        """The event of each mechanism, by the name of the asset that runs it."""
        return {GENERATOR: self.dpsgd.event, HISTOGRAM: self.votes.event}

    @property
    def is_private(self) -> bool:
        return self.level != NO_DP

    @functools.cached_property
    def epsilon(self) -> float:
        """The certified joint epsilon, rounded up."""
        return accounting.epsilon(self.event, self.delta)

    def to_json(self) -> dict[str, Any]:
        """A JSON value with every constant of the plan; an infinite target is null."""
        form = asdict(self)
        form["target_epsilon"] = None if math.isinf(self.target_epsilon) else self.target_epsilon
        return form

    @property
    def digest(self) -> str:
        """A hash of every constant of the plan."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def target_of(level: str) -> float:
    """The target epsilon that a level names, infinity for `no-dp`.

    Raises:
      ValueError: the name is neither `no-dp` nor `eps-` and a positive number.
    """
    if level == NO_DP:
        return math.inf
    try:
        target = float(level.removeprefix("eps-"))
    except ValueError:
        target = math.nan
    if not level.startswith("eps-") or not 0 < target < math.inf:
        raise ValueError(f"level {level!r} must be 'no-dp' or 'eps-' and a positive number, for example 'eps-2.86'")
    return target


def make_plan(
    *,
    level: str,
    delta: float,
    unit: PrivacyUnit,
    max_rows_per_unit: int,
    sampling_probability: float,
    steps: int,
    spare_steps: int,
    l2_clip_norm: float,
    expected_batch_size: int,
    num_bins: int,
    votes_noise_stddev: float,
) -> PrivacyPlan:
    """The plan of a level, with the least DP-SGD noise whose joint account meets the level's target.

    Raises:
      UnreachableTarget: the histogram alone exceeds the target, or the noise would be absurd.
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
        dpsgd=DpSgdPlan(
            sampling_probability=sampling_probability,
            steps=steps,
            spare_steps=spare_steps,
            l2_clip_norm=l2_clip_norm,
            noise_multiplier=0.0,
            expected_batch_size=expected_batch_size,
        ),
        votes=VotesPlan(num_bins=num_bins, noise_stddev=0.0 if unprotected else votes_noise_stddev),
    )
    return plan if unprotected else _calibrate(plan)


@functools.lru_cache(maxsize=64)
def _calibrate(plan: PrivacyPlan) -> PrivacyPlan:
    """`plan` with the smallest noise multiplier (to four decimals) whose certified joint epsilon meets the target."""
    low, high = SMALLEST_NOISE_MULTIPLIER, LARGEST_NOISE_MULTIPLIER
    if plan.votes.noise_stddev == 0 or _joint_epsilon(plan, high) > plan.target_epsilon:
        raise UnreachableTarget(
            f"{plan.level} cannot be met: even a noise multiplier of {high:g} gives more; raise votes.noise_stddev,"
            " lower generator.steps or generator.sampling_probability, or choose a larger level"
        )
    while high - low > 10**-NOISE_MULTIPLIER_DECIMALS / 4:
        middle = math.sqrt(low * high)
        if _joint_epsilon(plan, middle) <= plan.target_epsilon:
            high = middle
        else:
            low = middle
    return _certified(plan, accounting.round_up(high, NOISE_MULTIPLIER_DECIMALS))


def _joint_epsilon(plan: PrivacyPlan, noise_multiplier: float) -> float:
    event = _with_noise(plan, noise_multiplier).event
    return accounting.epsilon(event, plan.delta, discretization=accounting.CALIBRATION_DISCRETIZATION)


def _with_noise(plan: PrivacyPlan, noise_multiplier: float) -> PrivacyPlan:
    return replace(plan, dpsgd=replace(plan.dpsgd, noise_multiplier=noise_multiplier))


def _certified(plan: PrivacyPlan, noise_multiplier: float) -> PrivacyPlan:
    """Raise the noise in steps of one unit of the last decimal until the finer account also meets the target."""
    certified = _with_noise(plan, noise_multiplier)
    while certified.epsilon > plan.target_epsilon:
        noise_multiplier = round(noise_multiplier + 10**-NOISE_MULTIPLIER_DECIMALS, NOISE_MULTIPLIER_DECIMALS)
        certified = _with_noise(plan, noise_multiplier)
    return certified
