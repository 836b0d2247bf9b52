"""The JSON form of events: back and forth, and nothing that no mechanism could have done."""

import json
from typing import Any

import pytest
from dp_accounting import ComposedDpEvent, DpEvent, NonPrivateDpEvent

from dp_assets.privacy.events import (
    DiscreteGaussianDpEvent,
    UnknownEvent,
    dpsgd_event,
    event_from_json,
    event_to_json,
)

STEPS = dpsgd_event(sampling_probability=0.1, noise_multiplier=0.8, steps=3)
EVENTS = [STEPS, DiscreteGaussianDpEvent(4.0), NonPrivateDpEvent(), ComposedDpEvent([STEPS, NonPrivateDpEvent()])]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_as_it_was_written(event: DpEvent) -> None:
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_an_event_of_a_newer_version_is_refused() -> None:
    with pytest.raises(UnknownEvent, match="newer version"):
        event_from_json({"type": "wishful"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("count",), -3),
        (("count",), 0),
        (("count",), 2.5),
        (("count",), True),
        (("event", "sampling_probability"), -0.1),
        (("event", "sampling_probability"), 1.5),
        (("event", "event", "noise_multiplier"), -1.0),
        (("event", "event", "noise_multiplier"), float("inf")),
        (("event", "event", "noise_multiplier"), float("nan")),
        (("event", "event", "noise_multiplier"), "1"),
    ],
)
def test_a_value_that_no_mechanism_has_is_refused_wherever_it_stands(path: tuple[str, ...], value: Any) -> None:
    form = event_to_json(STEPS)
    part = form
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    for planted in (form, {"type": "composed", "events": [form]}):
        with pytest.raises(UnknownEvent, match=path[-1]):
            event_from_json(planted)
