"""Events: descriptions of mechanisms that the ledger stores and the accountant reads.

An event holds the parameters that are necessary and sufficient for accounting, in the vocabulary of dp_accounting. This
module adds the one event that dp_accounting lacks, the discrete Gaussian on integer votes, and a JSON form. An unknown
event is refused, never guessed. The meaning of an existing form never changes: a new meaning gets a new name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)


class UnknownEvent(ValueError):
    """An event, or its JSON form, that this version does not know; upgrade, or restore the ledger that was written."""


@dataclass(frozen=True)
class DiscreteGaussianDpEvent(DpEvent):  # type: ignore[misc]
    """An integer vector plus independent discrete Gaussian noise of this standard deviation on every coordinate.

    One unit changes one coordinate by at most `sensitivity` (an integer) and no other coordinate. Exact sampler and
    definition: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (arXiv 2004.00010).
    """

    noise_stddev: float
    sensitivity: int = 1

    def __post_init__(self) -> None:
        if self.noise_stddev < 0 or self.sensitivity != int(self.sensitivity) or self.sensitivity < 1:
            raise ValueError("noise_stddev must be at least 0 and sensitivity a positive integer")


def dpsgd_event(*, sampling_probability: float, noise_multiplier: float, steps: int) -> DpEvent:
    """Return the event of DP-SGD with Poisson sampling of units: a composition of Poisson-subsampled Gaussians."""
    step = PoissonSampledDpEvent(sampling_probability, GaussianDpEvent(noise_multiplier))
    return SelfComposedDpEvent(step, steps)


def event_to_json(event: DpEvent) -> dict[str, Any]:
    """Return the JSON form of an event.

    Raises:
      UnknownEvent: no JSON form is defined for this kind of event.
    """
    match event:
        case NonPrivateDpEvent():
            return {"type": "non_private"}
        case GaussianDpEvent():
            return {"type": "gaussian", "noise_multiplier": event.noise_multiplier}
        case DiscreteGaussianDpEvent():
            return {
                "type": "discrete_gaussian",
                "noise_stddev": event.noise_stddev,
                "sensitivity": event.sensitivity,
            }
        case PoissonSampledDpEvent():
            return {
                "type": "poisson_sampled",
                "sampling_probability": event.sampling_probability,
                "event": event_to_json(event.event),
            }
        case SelfComposedDpEvent():
            return {"type": "self_composed", "count": event.count, "event": event_to_json(event.event)}
        case ComposedDpEvent():
            return {"type": "composed", "events": [event_to_json(part) for part in event.events]}
    raise UnknownEvent(f"no JSON form for the event {type(event).__name__}")


def _count(form: Mapping[str, Any], name: str) -> Any:
    """Return a whole number of at least 1. A negative count, say, would subtract from what others spent."""
    return _checked(form, name, (int,), least=1, largest=math.inf)


def _real(form: Mapping[str, Any], name: str, *, largest: float) -> Any:
    """Return a finite number from 0 to `largest`."""
    return _checked(form, name, (int, float), least=0, largest=largest)


def _checked(
    form: Mapping[str, Any], name: str, kinds: tuple[type[int] | type[float], ...], *, least: float, largest: float
) -> Any:
    value: Any = form[name]
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= largest or math.isinf(value):
        raise UnknownEvent(f"the event {form['type']!r} has no sensible {name!r}; restore what was written")
    return value


_READERS: Mapping[str, Callable[[Mapping[str, Any]], DpEvent]] = {
    "non_private": lambda form: NonPrivateDpEvent(),
    "gaussian": lambda form: GaussianDpEvent(_real(form, "noise_multiplier", largest=math.inf)),
    "discrete_gaussian": lambda form: DiscreteGaussianDpEvent(
        _real(form, "noise_stddev", largest=math.inf), _count(form, "sensitivity")
    ),
    "poisson_sampled": lambda form: PoissonSampledDpEvent(
        _real(form, "sampling_probability", largest=1), event_from_json(form["event"])
    ),
    "self_composed": lambda form: SelfComposedDpEvent(event_from_json(form["event"]), _count(form, "count")),
    "composed": lambda form: ComposedDpEvent([event_from_json(part) for part in form["events"]]),
}


def event_from_json(form: Mapping[str, Any]) -> DpEvent:
    """Return the event whose JSON form `event_to_json` wrote.

    Raises:
      UnknownEvent: the form names no known event, or one with a value that no mechanism has.
    """
    reader = _READERS.get(form.get("type", ""))
    if reader is None:
        raise UnknownEvent(f"unknown event type {form.get('type')!r}; it was written by a newer version")
    return reader(form)
