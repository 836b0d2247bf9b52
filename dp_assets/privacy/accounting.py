"""From events to epsilon.

All figures hold for add-or-remove-one neighbours. Claims use privacy loss distributions (PLD), whose discretisation
here is pessimistic, so every figure is an upper bound; the adaptive gate of the ledger uses Renyi DP (RDP) at one order
that was fixed beforehand, because a filter on PLD curves is not valid when later mechanisms are chosen after earlier
results. Epsilon is rounded up.
"""

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

from dp_accounting import ComposedDpEvent, DpEvent, GaussianDpEvent, NonPrivateDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_discrete_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant

from dp_assets.privacy.events import DiscreteGaussianDpEvent, event_from_json, event_to_json
from dp_assets.privacy.units import RELATION

CERTIFIED_DISCRETIZATION = 1e-4
CALIBRATION_DISCRETIZATION = 1e-3
EPSILON_DECIMALS = 4


class Accountant(PLDAccountant):  # type: ignore[misc]
    """dp_accounting's PLD accountant that also composes discrete Gaussians, by their own PLD."""

    def _maybe_compose(self, event: DpEvent, count: int, do_compose: bool) -> Any:
        if not isinstance(event, DiscreteGaussianDpEvent):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose and event.noise_stddev == 0:
            self._contains_non_dp_event = True
        elif do_compose:
            votes = from_discrete_gaussian_mechanism(
                event.noise_stddev,
                event.sensitivity,
                value_discretization_interval=self._value_discretization_interval,
            )
            self._pld: Any = self._pld.compose(votes.self_compose(count))
        return None


def epsilon(event: DpEvent, delta: float, *, discretization: float = CERTIFIED_DISCRETIZATION) -> float:
    """The smallest certified epsilon of `event` at `delta`, rounded up; infinity for an event without noise."""
    return _epsilon_of_form(json.dumps(event_to_json(event)), delta, discretization)


@functools.lru_cache(maxsize=256)
def _epsilon_of_form(form: str, delta: float, discretization: float) -> float:
    """Cached, because every artifact of a run reports the same few compositions."""
    event = event_from_json(json.loads(form))
    accountant = Accountant(RELATION, value_discretization_interval=discretization)
    return round_up(float(accountant.compose(event).get_epsilon(delta)), EPSILON_DECIMALS)


def compose(events: Sequence[DpEvent]) -> DpEvent:
    """The composition of several events, with equal ones counted together so that a PLD is built once for each."""
    counts: dict[str, int] = {}
    for event in events:
        form = json.dumps(event_to_json(event), sort_keys=True)
        counts[form] = counts.get(form, 0) + 1
    return ComposedDpEvent([_repeated(event_from_json(json.loads(form)), count) for form, count in counts.items()])


def _repeated(event: DpEvent, count: int) -> DpEvent:
    return event if count == 1 else SelfComposedDpEvent(event, count)


def rdp(event: DpEvent, order: float) -> float:
    """The RDP of `event` at one order; infinity for an event without noise."""
    accountant = RdpAccountant([order], RELATION)
    accountant.compose(_for_rdp(event))
    return float(accountant._rdp[0])


def _for_rdp(event: DpEvent) -> DpEvent:
    """Discrete Gaussians replaced by continuous ones, whose RDP bounds theirs (arXiv 2004.00010, Theorem 4)."""
    if isinstance(event, DiscreteGaussianDpEvent):
        stddev = event.noise_stddev / event.sensitivity
        return GaussianDpEvent(stddev) if stddev > 0 else NonPrivateDpEvent()
    if isinstance(event, ComposedDpEvent):
        return ComposedDpEvent([_for_rdp(part) for part in event.events])
    if isinstance(event, SelfComposedDpEvent):
        return SelfComposedDpEvent(_for_rdp(event.event), event.count)
    return event


def rdp_to_epsilon(value: float, order: float, delta: float) -> float:
    """The epsilon of a mechanism with this RDP at this order (arXiv 2004.00010, Proposition 12), rounded up."""
    converted = value + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
    return round_up(max(converted, 0.0), EPSILON_DECIMALS)


def rdp_epsilon(event: DpEvent, delta: float, order: float) -> float:
    """The epsilon of `event` through RDP at one order that was fixed before any output was seen."""
    return rdp_to_epsilon(rdp(event, order), order, delta)


def round_up(value: float, decimals: int) -> float:
    """`value` rounded towards infinity at this many decimals."""
    return value if math.isinf(value) else math.ceil(value * 10**decimals) / 10**decimals


def signal_to_noise(*, expected_batch_size: float, noise_multiplier: float, num_parameters: int) -> float:
    """Largest possible norm of an expected clipped sum over the expected norm of one step's noise; both scale with the
    clip.

    Below about 0.3 a step is mostly noise: shrink the adapter, raise the batch, or accept a larger epsilon.
    """
    return math.inf if noise_multiplier == 0 else expected_batch_size / (noise_multiplier * math.sqrt(num_parameters))


@functools.lru_cache(maxsize=64)
def true_positive_rate(form: str, delta_grid: tuple[float, ...], false_positive_rate: float) -> float:
    """An attacker's largest true-positive rate at this false-positive rate, from the PLD of an event in JSON form.

    Every (epsilon, delta) that the PLD certifies bounds it: TPR <= e^epsilon FPR + delta and TPR <= 1 - e^-epsilon
    (1 - delta - FPR) (Kairouz, Oh and Viswanath, 2015). The minimum over a grid of deltas is reported.
    """
    accountant = Accountant(RELATION, value_discretization_interval=CALIBRATION_DISCRETIZATION)
    accountant.compose(event_from_json(json.loads(form)))
    bounds = [1.0]
    for delta in delta_grid:
        bound = accountant.get_epsilon(delta)
        if math.isfinite(bound):
            bounds.append(math.exp(bound) * false_positive_rate + delta)
            bounds.append(1 - math.exp(-bound) * (1 - delta - false_positive_rate))
    return min(bounds)
