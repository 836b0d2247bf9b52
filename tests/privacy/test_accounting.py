"""Figures against published values, and the accountant's contract."""

import math

import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, NonPrivateDpEvent, NoOpDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import (
    DiscreteGaussianDpEvent,
    UnknownEvent,
    dpsgd_event,
    event_from_json,
    event_to_json,
)


@pytest.mark.parametrize(("noise_multiplier", "expected"), [(1.0, 4.377), (2.0, 1.993)])
def test_gaussian_epsilon_agrees_with_the_published_value(noise_multiplier: float, expected: float) -> None:
    assert accounting.epsilon(GaussianDpEvent(noise_multiplier), 1e-5) == pytest.approx(expected, abs=2e-3)


def test_paper_histogram_alone_costs_what_the_reference_says() -> None:
    assert 0.4125 <= accounting.epsilon(DiscreteGaussianDpEvent(10.0), 5e-7) <= 0.4127


def test_paper_setting_with_histogram_costs_what_the_reference_says() -> None:
    dpsgd = dpsgd_event(sampling_probability=4096 / 180_000, noise_multiplier=0.81, steps=440)
    joint = accounting.epsilon(ComposedDpEvent([dpsgd, DiscreteGaussianDpEvent(10.0)]), 5e-7)
    assert joint == pytest.approx(5.914, abs=0.005)


def test_composition_costs_more_than_its_worst_part_and_less_than_the_sum() -> None:
    parts = [dpsgd_event(sampling_probability=0.1, noise_multiplier=1.0, steps=20), DiscreteGaussianDpEvent(4.0)]
    alone = [accounting.epsilon(part, 1e-5) for part in parts]
    assert max(alone) < accounting.epsilon(accounting.compose(parts), 1e-5) < sum(alone)


def test_equal_events_count_twice() -> None:
    once, twice = [GaussianDpEvent(2.0)], [GaussianDpEvent(2.0)] * 2
    composed = accounting.epsilon(accounting.compose(twice), 1e-5)
    assert composed == pytest.approx(accounting.epsilon(GaussianDpEvent(math.sqrt(2)), 1e-5), abs=1e-3)
    assert composed > accounting.epsilon(accounting.compose(once), 1e-5)


@pytest.mark.parametrize("event", [NonPrivateDpEvent(), DiscreteGaussianDpEvent(0.0), GaussianDpEvent(0.0)])
def test_an_event_without_noise_has_infinite_epsilon(event: object) -> None:
    assert accounting.epsilon(accounting.compose([event]), 1e-5) == math.inf
    assert accounting.rdp(event, 4) == math.inf


def test_no_events_cost_nothing() -> None:
    assert accounting.epsilon(accounting.compose([]), 1e-5) == 0


def test_rdp_epsilon_is_never_below_the_pld_epsilon() -> None:
    event = ComposedDpEvent(
        [dpsgd_event(sampling_probability=0.05, noise_multiplier=1.0, steps=100), DiscreteGaussianDpEvent(5.0)]
    )
    best = min(accounting.rdp_epsilon(event, 1e-5, order) for order in (2, 4, 8, 16, 32))
    assert best >= accounting.epsilon(event, 1e-5)


def test_reported_epsilon_is_rounded_up() -> None:
    assert accounting.round_up(1.00001, 4) == 1.0001
    assert accounting.round_up(1.0, 4) == 1.0
    assert accounting.round_up(math.inf, 4) == math.inf


def test_events_survive_their_json_form() -> None:
    event = ComposedDpEvent(
        [dpsgd_event(sampling_probability=0.1, noise_multiplier=0.9, steps=7), DiscreteGaussianDpEvent(3.5, 1)]
    )
    assert event_from_json(event_to_json(event)) == event


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(UnknownEvent):
        event_to_json(NoOpDpEvent())
    with pytest.raises(UnknownEvent):
        event_from_json({"type": "from_the_future"})


def test_true_positive_rate_of_a_gaussian_is_bounded_by_its_trade_off_curve() -> None:
    import json
    from statistics import NormalDist

    normal, mu, rate = NormalDist(), 1.0, 0.01
    exact = normal.cdf(normal.inv_cdf(rate) + mu)
    grid = tuple(10.0**-exponent for exponent in range(1, 11))
    bound = accounting.true_positive_rate(json.dumps(event_to_json(GaussianDpEvent(1.0))), grid, rate)
    assert exact <= bound <= 3 * exact
