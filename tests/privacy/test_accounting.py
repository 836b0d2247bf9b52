"""Figures against published values, and the accountant's contract."""

import itertools
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
)
from dp_accounting.rdp import compute_epsilon

from dp_assets.privacy import accounting
from dp_assets.privacy.events import (
    DiscreteGaussianDpEvent,
    UnknownEvent,
    dpsgd_event,
    event_from_json,
    event_to_json,
)
from dp_assets.privacy.losses import ONE_UNIT, account
from dp_assets.privacy.registration import GATE_ORDERS

DELTA = 5e-7


def paper_event(noise_multiplier: float) -> DpEvent:
    dpsgd = dpsgd_event(sampling_probability=4096 / 180_000, noise_multiplier=noise_multiplier, steps=440)
    return ComposedDpEvent([dpsgd, DiscreteGaussianDpEvent(10.0)])


@pytest.mark.parametrize(("noise_multiplier", "expected"), [(1.0, 4.377), (2.0, 1.993)])
def test_gaussian_epsilon_agrees_with_the_published_value(noise_multiplier: float, expected: float) -> None:
    assert accounting.epsilon(GaussianDpEvent(noise_multiplier), 1e-5) == pytest.approx(expected, abs=2e-3)


def test_paper_histogram_alone_costs_what_the_reference_says() -> None:
    assert 0.4125 <= accounting.epsilon(DiscreteGaussianDpEvent(10.0), 5e-7) <= 0.4127


def test_paper_setting_with_histogram_costs_what_the_reference_says() -> None:
    assert accounting.epsilon(paper_event(0.81), DELTA) == pytest.approx(5.914, abs=0.005)


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


@pytest.mark.parametrize("order", GATE_ORDERS)
def test_the_epsilon_of_an_rdp_at_one_order_is_the_librarys(order: int) -> None:
    for value, delta in itertools.product((0.01, 1.0, 20.0), (1e-9, 1e-5, 1e-2)):
        library = compute_epsilon([order], [value], delta)[0]
        assert library <= accounting.rdp_to_epsilon(value, order, delta) <= library + 1e-4


def test_the_delta_curve_is_certified_at_every_epsilon_and_falls() -> None:
    event = dpsgd_event(sampling_probability=0.1, noise_multiplier=1.0, steps=10)
    epsilons, deltas = accounting.delta_curve(event)
    assert (epsilons[0], epsilons[-1]) == (0.0, pytest.approx(30.0))
    assert (np.diff(deltas) <= 0).all()
    for index in (0, 1000, 3000):
        assert accounting.epsilon(event, float(deltas[index])) == pytest.approx(epsilons[index], abs=2e-3)


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


@pytest.mark.parametrize(("noise_multiplier", "least", "most"), [(0.81, 7.69, 7.73), (1.11, 4.57, 4.64)])
def test_replacing_one_unit_costs_what_the_reference_says(noise_multiplier: float, least: float, most: float) -> None:
    assert least <= accounting.replace_one_epsilon(paper_event(noise_multiplier), DELTA) <= most


def test_a_replaced_vote_counts_in_two_bins() -> None:
    moved = accounting.replace_one_epsilon(DiscreteGaussianDpEvent(10.0), DELTA)
    assert moved == accounting.epsilon(accounting.compose([DiscreteGaussianDpEvent(10.0)] * 2), DELTA)
    assert moved == pytest.approx(0.597, abs=0.002)


def test_a_replaced_row_moves_a_gaussian_sum_twice_as_far() -> None:
    moved, twice = accounting.replace_one_epsilon(GaussianDpEvent(4.0), 1e-5), GaussianDpEvent(2.0)
    assert moved == pytest.approx(accounting.epsilon(twice, 1e-5), abs=1e-3)


def test_a_group_of_one_costs_what_a_unit_costs() -> None:
    assert accounting.group_epsilon(paper_event(0.81), DELTA, 1) == accounting.epsilon(paper_event(0.81), DELTA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_multiplier", "expected"),
    [(0.81, {2: 12.7, 4: 28.1, 8: 66.0}), (1.13, {2: 6.2, 4: 13.9, 8: 32.8})],
)
def test_a_person_with_several_instructions_pays_what_the_reference_says(
    noise_multiplier: float, expected: dict[int, float]
) -> None:
    event = paper_event(noise_multiplier)
    assert {size: accounting.group_epsilon(event, DELTA, size) for size in expected} == pytest.approx(
        expected, rel=0.005
    )


def test_a_group_in_full_batches_is_one_unit_that_moves_as_far() -> None:
    step = PoissonSampledDpEvent(1.0, GaussianDpEvent(8.0))
    together = accounting.epsilon(GaussianDpEvent(2.0), 1e-5)
    assert accounting.group_epsilon(step, 1e-5, 4) == pytest.approx(together, rel=1e-3)
    assert accounting.group_epsilon(GaussianDpEvent(8.0), 1e-5, 4) == pytest.approx(together, rel=1e-3)


def test_a_sampled_group_costs_more_than_a_unit_and_less_than_as_many_always_drawn() -> None:
    def steps(probability: float) -> DpEvent:
        return dpsgd_event(sampling_probability=probability, noise_multiplier=8.0, steps=10)

    costs = [accounting.group_epsilon(steps(0.1), 1e-5, size) for size in accounting.GROUP_SIZES]
    assert costs == sorted(set(costs))
    # However the draws fall, a person of eight weighs at most eight times as much as one who is drawn just as often.
    assert costs[-1] < accounting.group_epsilon(steps(1 - 0.9**8), 1e-5, 8)
    assert costs[-1] > accounting.epsilon(steps(1 - 0.9**8), 1e-5)


def partitions(total: int, largest: int | None = None) -> list[tuple[int, ...]]:
    """All ways to write `total` as a sum of positive integers, largest first."""
    if total == 0:
        return [()]
    first = range(min(total, largest or total), 0, -1)
    return [(part, *rest) for part in first for rest in partitions(total - part, part)]


@pytest.mark.parametrize("noise_stddev", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("group_size", [2, 4])
def test_no_split_of_a_persons_votes_over_bins_costs_more_than_one_bin(group_size: int, noise_stddev: float) -> None:
    """On the whole curve of epsilon and delta, so that it holds in composition with anything else.

    With these standard deviations every loss lies on the grid, so that the curves are exact.
    """
    epsilons = [0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0]

    def curve(parts: tuple[int, ...]) -> list[float]:
        votes = ComposedDpEvent([DiscreteGaussianDpEvent(noise_stddev, part) for part in parts])
        return list(account(json.dumps(event_to_json(votes)), ONE_UNIT, 1e-3).get_delta(epsilons))

    worst, *others = partitions(group_size)
    assert worst == (group_size,)
    rounding = 1e-12
    for parts in others:
        below = [split <= one_bin + rounding for split, one_bin in zip(curve(parts), curve(worst), strict=True)]
        assert all(below), parts


def test_a_group_with_hardly_any_noise_has_no_bound() -> None:
    assert accounting.group_epsilon(DiscreteGaussianDpEvent(0.2), 1e-5, 8) == math.inf
    assert accounting.group_epsilon(NonPrivateDpEvent(), 1e-5, 2) == math.inf


@pytest.mark.parametrize("group_size", [0, -1])
def test_a_group_of_nobody_is_refused(group_size: int) -> None:
    with pytest.raises(ValueError, match="group_size"):
        accounting.group_epsilon(GaussianDpEvent(1.0), 1e-5, group_size)


def test_what_is_unknown_of_groups_and_replacements_is_refused() -> None:
    sampled_votes = PoissonSampledDpEvent(0.5, DiscreteGaussianDpEvent(4.0))
    with pytest.raises(UnknownEvent):
        accounting.group_epsilon(sampled_votes, 1e-5, 2)
    with pytest.raises(UnknownEvent):
        accounting.replace_one_epsilon(sampled_votes, 1e-5)
    with pytest.raises(UnknownEvent):
        accounting.replace_one_epsilon(DiscreteGaussianDpEvent(4.0, 2), 1e-5)


def gaussian_true_positive_rate(mu: float, false_positive_rate: float) -> float:
    """The best test of N(0, 1) against N(mu, 1) (Dong, Roth and Su, arXiv 1905.02383)."""
    normal = NormalDist()
    return normal.cdf(normal.inv_cdf(false_positive_rate) + mu)


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 2.0, 4.0])
def test_the_trade_off_of_a_gaussian_is_its_closed_form_from_just_above(mu: float) -> None:
    rates = (0.001, 0.01, 0.1)
    bounds = accounting.trade_off(GaussianDpEvent(1 / mu), rates)
    for rate in rates:
        exact = gaussian_true_positive_rate(mu, rate)
        assert exact <= bounds[rate] <= 1.005 * exact + 1e-6
        assert 1 - bounds[rate] >= 0.98 * (1 - exact) - 1e-6  # those who stay hidden, where hardly anybody does


def test_the_trade_off_of_many_steps_is_that_of_their_sum() -> None:
    """A hundred full-batch steps are one Gaussian, but composed numerically."""
    steps = dpsgd_event(sampling_probability=1.0, noise_multiplier=10.0, steps=100)
    exact = gaussian_true_positive_rate(1.0, 0.01)
    assert exact <= accounting.trade_off(steps, (0.01,))[0.01] <= 1.01 * exact


def test_without_noise_an_attacker_always_finds_out() -> None:
    assert accounting.trade_off(NonPrivateDpEvent(), (0.0, 0.01)) == {0.0: 1.0, 0.01: 1.0}


def test_without_mechanisms_an_attacker_can_only_guess() -> None:
    assert accounting.trade_off(accounting.compose([]), (0.01, 0.5)) == pytest.approx({0.01: 0.01, 0.5: 0.5}, abs=1e-4)
