"""Accounting: from events to epsilon, group epsilon, trade-off curve and Renyi DP.

Figures hold for add-or-remove-one neighbors unless a function says otherwise. Claims use privacy loss distributions
(PLD, `losses.py`), which give upper bounds. The adaptive gate of the ledger uses Renyi DP (RDP) at one order that was
fixed beforehand, because a filter on PLDs is not valid when later mechanisms are chosen after earlier results. Epsilons
and true-positive rates are rounded up. An epsilon is infinite where the PLD certifies no finite one.
"""

import functools
import json
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    SelfComposedDpEvent,
    UnsupportedEventError,
)
from dp_accounting.rdp import RdpAccountant

from dp_assets.privacy.events import DiscreteGaussianDpEvent, UnknownEvent, event_from_json, event_to_json
from dp_assets.privacy.losses import ONE_UNIT, REPLACED_UNIT, Neighbors, account
from dp_assets.privacy.units import RELATION

CERTIFIED_DISCRETIZATION = 1e-4
CALIBRATION_DISCRETIZATION = 1e-3
GROUP_DISCRETIZATION = 5e-3
"""Discretization interval for group epsilons. They take seconds even so, because each loss of a mixture is inverted in
Python. At the published setting they are less than 0.5 % looser than with a fine interval."""
GROUP_SIZES = (1, 2, 4, 8)
EPSILON_DECIMALS, RATE_DECIMALS = 4, 6

_EPSILON_GRID = np.concatenate([[0.0], np.geomspace(1e-5, 30, 4000)])


def epsilon(event: DpEvent, delta: float) -> float:
    """Return the smallest certified epsilon of `event` at `delta`, rounded up; infinity for an event without noise."""
    return _epsilon(json.dumps(event_to_json(event)), delta, ONE_UNIT, CERTIFIED_DISCRETIZATION)


def coarse_epsilon(event: DpEvent, delta: float) -> float:
    """Return the same from a coarser account, which is faster and hardly larger, for the search of calibration."""
    return _epsilon(json.dumps(event_to_json(event)), delta, ONE_UNIT, CALIBRATION_DISCRETIZATION)


def replace_one_epsilon(event: DpEvent, delta: float) -> float:
    """Return the certified epsilon of `event` for neighbors that replace one unit by another, rounded up.

    Raises:
      UnknownEvent: an event whose effect on a replaced unit is not known.
    """
    return _epsilon(json.dumps(event_to_json(event)), delta, REPLACED_UNIT, CERTIFIED_DISCRETIZATION)


def group_epsilon(event: DpEvent, delta: float, group_size: int) -> float:
    """Return the certified epsilon for one person who owns `group_size` units, all added or removed, rounded up.

    Raises:
      UnknownEvent: an event whose effect on a group is not known.
      ValueError: `group_size` is less than one.
    """
    if group_size < 1:
        raise ValueError("group_size must be at least 1")
    if group_size == 1:
        return epsilon(event, delta)
    return _epsilon(json.dumps(event_to_json(event)), delta, Neighbors(RELATION, group_size), GROUP_DISCRETIZATION)


@functools.lru_cache(maxsize=256)
def _epsilon(form: str, delta: float, neighbors: Neighbors, discretization: float) -> float:
    """Compute a certified epsilon. Cached, because every artifact of a run reports the same few compositions."""
    return round_up(account(form, neighbors, discretization).get_epsilon(delta), EPSILON_DECIMALS)


def trade_off(event: DpEvent, false_positive_rates: Sequence[float]) -> dict[float, float]:
    """Return an attacker's largest true-positive rate at each false-positive rate, rounded up, from the PLD of `event`.

    Every point (epsilon, delta) of the hockey-stick curve gives two bounds: TPR <= e^epsilon FPR + delta and TPR <= 1 -
    e^-epsilon (1 - delta - FPR) (Kairouz, Oh and Viswanath, 2015). The result is the least bound over a grid of
    epsilons, so it is loose by the step of the grid only.
    """
    deltas = _delta_curve(json.dumps(event_to_json(event)))
    return {rate: _least_bound(deltas, rate) for rate in false_positive_rates}


def delta_curve(event: DpEvent) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return epsilons from 0 to 30, and the certified delta of `event` at each; both of shape (n,)."""
    return _EPSILON_GRID.copy(), np.asarray(_delta_curve(json.dumps(event_to_json(event))))


@functools.lru_cache(maxsize=64)
def _delta_curve(form: str) -> tuple[float, ...]:
    """Return the certified delta at each epsilon of the grid."""
    certified = account(form, ONE_UNIT, CERTIFIED_DISCRETIZATION)
    return tuple(np.broadcast_to(certified.get_delta(_EPSILON_GRID), _EPSILON_GRID.shape).tolist())


def _least_bound(deltas: Sequence[float], false_positive_rate: float) -> float:
    curve = np.asarray(deltas)
    by_detection = np.exp(_EPSILON_GRID) * false_positive_rate + curve
    by_rejection = 1 - np.exp(-_EPSILON_GRID) * (1 - curve - false_positive_rate)
    least = float(min(by_detection.min(), by_rejection.min()))
    return min(1.0, round_up(least, RATE_DECIMALS))


def compose(events: Sequence[DpEvent]) -> DpEvent:
    """Return the composition of several events. Equal events are counted, so that each needs one PLD.

    The result does not depend on the order of `events`, so neither does a figure computed from it.
    """
    counts: dict[str, int] = {}
    for event in events:
        form = json.dumps(event_to_json(event), sort_keys=True)
        counts[form] = counts.get(form, 0) + 1
    parts = [_repeated(event_from_json(json.loads(form)), count) for form, count in sorted(counts.items())]
    return ComposedDpEvent(parts)


def _repeated(event: DpEvent, count: int) -> DpEvent:
    return event if count == 1 else SelfComposedDpEvent(event, count)


def rdp(event: DpEvent, order: float) -> float:
    """Return the RDP of `event` at one order; infinity for an event without noise.

    Raises:
      UnknownEvent: an event whose RDP is not known.
    """
    accountant = RdpAccountant([order], RELATION)
    try:
        accountant.compose(_for_rdp(event))
    except UnsupportedEventError:
        raise UnknownEvent("no account by Renyi DP for one of the events") from None
    return float(accountant._rdp[0])


def _for_rdp(event: DpEvent) -> DpEvent:
    """Replace discrete Gaussians by continuous ones, whose RDP is an upper bound (arXiv 2004.00010, Theorem 4)."""
    if isinstance(event, DiscreteGaussianDpEvent):
        stddev = event.noise_stddev / event.sensitivity
        return GaussianDpEvent(stddev) if stddev > 0 else NonPrivateDpEvent()
    if isinstance(event, ComposedDpEvent):
        return ComposedDpEvent([_for_rdp(part) for part in event.events])
    if isinstance(event, SelfComposedDpEvent):
        return SelfComposedDpEvent(_for_rdp(event.event), event.count)
    return event


def rdp_to_epsilon(value: float, order: float, delta: float) -> float:
    """Return the epsilon of a mechanism with this RDP at this order (arXiv 2004.00010, Proposition 12), rounded up."""
    converted = value + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
    return round_up(max(converted, 0.0), EPSILON_DECIMALS)


def rdp_epsilon(event: DpEvent, delta: float, order: float) -> float:
    """Return the epsilon of `event` through RDP at one order that was fixed before any output was seen."""
    return rdp_to_epsilon(rdp(event, order), order, delta)


def round_up(value: float, decimals: int) -> float:
    """Round `value` towards infinity at this many decimals."""
    return value if math.isinf(value) else math.ceil(value * 10**decimals) / 10**decimals


def signal_to_noise(*, expected_batch_size: float, noise_multiplier: float, num_parameters: int) -> float:
    """Return the largest possible norm of an expected clipped sum, over the expected norm of one step's noise.

    Both norms are proportional to the clip norm, so the ratio does not depend on it. Below about 0.3 a step is mostly
    noise: shrink the adapter, raise the batch size, or accept a larger epsilon.
    """
    return math.inf if noise_multiplier == 0 else expected_batch_size / (noise_multiplier * math.sqrt(num_parameters))
