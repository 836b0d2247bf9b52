"""Privacy loss distributions (PLD) of events, on grids that keep time and memory bounded.

Guarantee: every delta read from an account here is an upper bound. Losses are rounded pessimistically on any grid, and
an allowance covers the rounding of the Fourier transforms behind composition. Without the allowance, a delta below 1e-9
over thousands of steps comes out too small.

The interval of the grid follows from the event:

- usually the requested interval;
- a finer one where single losses are tiny beside it (many steps with much noise);
- a coarser one where losses range over more than `RANGE` (little noise), in proportion, so that the number of points is
  at most `RANGE` over the requested interval.

Beyond `LARGEST_INTERVAL` nothing is resolved, and the event counts as one without noise.

Neighbors differ by one unit added or removed, by one unit replaced, or by all units of one person (`Neighbors`). Only
compositions of Gaussians, Poisson-subsampled Gaussians and discrete Gaussians are supported.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_discrete_gaussian_mechanism

from dp_assets.privacy.events import DiscreteGaussianDpEvent, UnknownEvent, event_from_json
from dp_assets.privacy.units import RELATION

FINEST_INTERVAL, LARGEST_INTERVAL = 1e-5, 0.25
RANGE = 40.0
"""About the range of losses of one step with noise multiplier 0.3."""
MOST_COMPOSITIONS = 1_000_000
LARGEST_NOISE_MULTIPLIER, LARGEST_VOTES_NOISE = 1e6, 1e5
"""Discrete Gaussians are tabulated: 23 integers per unit of standard deviation."""

ROUNDING_A_COMPOSITION = 1e-15
"""Allowance on delta for each composed mechanism, about a hundred times the error measured against the closed form."""

SMALLEST_DELTA = 1e-12

_SPREADS = 10.0  # standard deviations of a loss; the mass beyond them is far below any delta
_LARGEST_SHIFT, _ABSURD_SHIFT = 7.0, 1e6  # beyond these the grid is coarse anyway, and products would overflow


class Unaccountable(ValueError):
    """An event that cannot be accounted for in bounded time and memory; the message names the constant to change."""


@dataclass(frozen=True)
class Neighbors:
    """The difference between two neighboring corpora: `group_size` units added or removed, or one unit replaced."""

    relation: NeighboringRelation
    group_size: int = 1


ONE_UNIT = Neighbors(RELATION)
REPLACED_UNIT = Neighbors(NeighboringRelation.REPLACE_ONE)


class Account(PLDAccountant):  # type: ignore[misc]
    """dp_accounting's PLD accountant that also composes discrete Gaussians, by their own PLD, and allows for rounding.

    It treats discrete Gaussians under add-or-remove. `_seen_by` expresses other relations through that one.
    """

    rounding = 0.0

    def _maybe_compose(self, event: DpEvent, count: int, do_compose: bool) -> Any:
        if do_compose and not isinstance(event, ComposedDpEvent | SelfComposedDpEvent):
            self.rounding += count * ROUNDING_A_COMPOSITION
        if not isinstance(event, DiscreteGaussianDpEvent):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose and _too_little_noise(event):
            self._contains_non_dp_event = True
        elif do_compose:
            votes = _votes_losses(event.noise_stddev, event.sensitivity, self._value_discretization_interval)
            self._pld: Any = self._pld.compose(votes.self_compose(count))
        return None

    def get_epsilon(self, target_delta: float) -> float:
        """Return the smallest certified epsilon; infinity where delta does not exceed the allowance for rounding."""
        left = target_delta - self.rounding
        return float(super().get_epsilon(left)) if left > 0 else math.inf

    def get_delta(self, target_epsilon: Any) -> Any:
        """Return the certified delta at an epsilon, or at each of an ascending list of epsilons."""
        return np.minimum(1.0, super().get_delta(target_epsilon) + self.rounding)


@functools.lru_cache(maxsize=8)
def account(form: str, neighbors: Neighbors, interval: float) -> Account:
    """Return the account of an event in JSON form, with a grid of this interval where possible.

    Raises:
      UnknownEvent: an event whose effect on these neighbors is not known.
      Unaccountable: too many compositions, or votes with too much noise to tabulate.
    """
    event = _map_mechanisms(event_from_json(json.loads(form)), functools.partial(_seen_by, neighbors=neighbors))
    refuse_unbounded(event)
    interval = _suitable_interval(event, neighbors.relation, interval)
    resolved = interval <= LARGEST_INTERVAL
    certified = Account(neighbors.relation, value_discretization_interval=interval if resolved else LARGEST_INTERVAL)
    certified.compose(event if resolved else NonPrivateDpEvent())
    return certified


@functools.lru_cache(maxsize=8)
def _votes_losses(noise_stddev: float, sensitivity: int, interval: float) -> Any:
    """Return the PLD of votes. Cached, because calibration composes the same votes with many noise multipliers."""
    return from_discrete_gaussian_mechanism(
        noise_stddev, sensitivity, value_discretization_interval=interval, use_connect_dots=True
    )


# What neighbors see of a mechanism


def _map_mechanisms(event: DpEvent, change: Callable[[DpEvent], DpEvent]) -> DpEvent:
    """Return `event` with every mechanism in its tree of compositions replaced by `change` of it."""
    match event:
        case ComposedDpEvent():
            return ComposedDpEvent([_map_mechanisms(part, change) for part in event.events])
        case SelfComposedDpEvent():
            return SelfComposedDpEvent(_map_mechanisms(event.event, change), event.count)
    return change(event)


def _seen_by(mechanism: DpEvent, *, neighbors: Neighbors) -> DpEvent:
    """Return the event that bounds what `mechanism` reveals of the difference between such neighbors."""
    match mechanism:
        case NonPrivateDpEvent():
            return mechanism
        case DiscreteGaussianDpEvent() if neighbors == REPLACED_UNIT:
            return _replaced_vote(mechanism)
        case DiscreteGaussianDpEvent():
            # The worst case has all votes of a group in one bin (a test compares every other split).
            return DiscreteGaussianDpEvent(mechanism.noise_stddev, mechanism.sensitivity * neighbors.group_size)
        case GaussianDpEvent():
            return GaussianDpEvent(mechanism.noise_multiplier / neighbors.group_size)
        case PoissonSampledDpEvent(event=GaussianDpEvent()) if neighbors.group_size == 1:
            return mechanism
        case PoissonSampledDpEvent(event=GaussianDpEvent()):
            return _sampled_group(mechanism, neighbors.group_size)
    raise UnknownEvent(f"no account for the event {type(mechanism).__name__} under {neighbors}")


def _replaced_vote(votes: DiscreteGaussianDpEvent) -> DpEvent:
    """Return the event of a vote that moves: two bins change by one each.

    dp_accounting itself doubles the change of a Gaussian sum under replacement.
    """
    if votes.sensitivity != 1:
        raise UnknownEvent("replace-one is known for one vote a unit only; votes of more have no such account")
    return SelfComposedDpEvent(votes, 2)


def _sampled_group(step: PoissonSampledDpEvent, group_size: int) -> DpEvent:
    """Return the event of a step that samples each of a person's units independently.

    The sum moves by at most a binomial number of clip norms, and the mixture of Gaussians over that number dominates
    (Charles et al., arXiv 2407.07737).
    """
    chance = step.sampling_probability
    if chance == 1:
        return GaussianDpEvent(step.event.noise_multiplier / group_size)
    hits = range(group_size + 1)
    chances = tuple(math.comb(group_size, hit) * chance**hit * (1 - chance) ** (group_size - hit) for hit in hits)
    return MixtureOfGaussiansDpEvent(step.event.noise_multiplier, tuple(hits), chances)


# The grid


def _mechanisms(event: DpEvent, count: int) -> Iterator[tuple[DpEvent, int]]:
    """Yield the mechanisms of a tree of compositions, each with the number of its uses."""
    match event:
        case ComposedDpEvent():
            for part in event.events:
                yield from _mechanisms(part, count)
        case SelfComposedDpEvent():
            yield from _mechanisms(event.event, count * event.count)
        case _:
            yield event, count


def smallest_delta(compositions: int) -> float:
    """Return the least delta that this many composed mechanisms support with little loss to rounding."""
    return max(SMALLEST_DELTA, 2 * compositions * ROUNDING_A_COMPOSITION)


def refuse_unbounded(event: DpEvent) -> None:
    """Refuse an event that would take more than seconds or unbounded memory.

    Raises:
      Unaccountable: too many compositions, or too much noise.
    """
    mechanisms = list(_mechanisms(event, 1))
    if sum(count for _, count in mechanisms) > MOST_COMPOSITIONS:
        raise Unaccountable(f"more than {MOST_COMPOSITIONS} steps cannot be accounted for; lower generator.steps")
    for mechanism, _ in mechanisms:
        if isinstance(mechanism, DiscreteGaussianDpEvent) and mechanism.noise_stddev > LARGEST_VOTES_NOISE:
            raise Unaccountable(f"votes.noise_stddev above {LARGEST_VOTES_NOISE:g} cannot be accounted for; lower it")
        if any(0 < shift < 1 / LARGEST_NOISE_MULTIPLIER for _, shift in _shifts(mechanism, RELATION)):
            raise Unaccountable(f"a noise multiplier above {LARGEST_NOISE_MULTIPLIER:g} cannot be accounted for")


def _suitable_interval(event: DpEvent, relation: NeighboringRelation, interval: float) -> float:
    """Return `interval`, or a finer or coarser one as the module docstring says.

    Rounding adds a variance of at most interval^2 per composition, here at most a hundredth of the losses' own.
    """
    mechanisms = [(_shifts(mechanism, relation), count) for mechanism, count in _mechanisms(event, 1)]
    uses = sum(count for shifts, count in mechanisms if shifts)
    variance = sum(count * _deviation(shifts) ** 2 for shifts, count in mechanisms)
    finest = max(FINEST_INTERVAL, min(interval, 0.1 * math.sqrt(variance / uses))) if uses else interval
    return max(finest, interval * _range_of_losses(mechanisms) / RANGE)


Shifts = list[tuple[float, float]]


def _shifts(mechanism: DpEvent, relation: NeighboringRelation) -> Shifts:
    """Return the shifts of a mechanism's output, in standard deviations of its noise, each with its probability."""
    doubled = 2.0 if relation is NeighboringRelation.REPLACE_ONE else 1.0
    match mechanism:
        case GaussianDpEvent() if mechanism.noise_multiplier > 0:
            return [(1.0, doubled / mechanism.noise_multiplier)]
        case PoissonSampledDpEvent() if mechanism.event.noise_multiplier > 0:
            return [(mechanism.sampling_probability, doubled / mechanism.event.noise_multiplier)]
        case DiscreteGaussianDpEvent() if mechanism.noise_stddev > 0:
            return [(1.0, mechanism.sensitivity / mechanism.noise_stddev)]
        case MixtureOfGaussiansDpEvent() if mechanism.standard_deviation > 0:
            moves = zip(mechanism.sampling_probs, mechanism.sensitivities, strict=True)
            return [(chance, move / mechanism.standard_deviation) for chance, move in moves]
    return []


def _deviation(shifts: Shifts) -> float:
    """Approximate the standard deviation of the likelihood ratio: that of each shift, weighted by its probability."""
    return sum(chance * math.sqrt(math.expm1(min(shift, _LARGEST_SHIFT) ** 2)) for chance, shift in shifts)


def _range_of_losses(mechanisms: list[tuple[Shifts, int]]) -> float:
    """Approximate the largest loss that matters, of one use or of all uses together.

    The loss of a Gaussian at this shift has mean shift^2/2 and variance shift^2. A mixture's loss is bounded by the
    means of its parts.
    """
    uses = [(count * chance, min(shift, _ABSURD_SHIFT)) for shifts, count in mechanisms for chance, shift in shifts]
    largest = max((shift for _, shift in uses), default=0.0)
    mean = sum(weight * shift**2 / 2 for weight, shift in uses)
    variance = sum(weight * (shift**2 + shift**4 / 4) for weight, shift in uses)
    return max(largest**2 / 2 + _SPREADS * largest, mean + _SPREADS * math.sqrt(variance))


def _too_little_noise(votes: DiscreteGaussianDpEvent) -> bool:
    """Return whether the tabulated noise, cut where its mass is below 1e-30, is narrower than one unit's change.

    dp_accounting tabulates 11.6 standard deviations on each side and raises where that is too narrow.
    """
    return 2 * math.ceil(11.6 * votes.noise_stddev) < votes.sensitivity
