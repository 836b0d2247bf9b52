"""Known values by hand, invariances, and the noise floor against a simulation."""

import importlib
import math

import numpy as np
import pytest

from dp_assets.evaluation.agreement import (
    agreement_figures,
    bin_shares,
    clearly_occupied_bins,
    coverage,
    expected_noise_total_variation,
    frontier_scores,
    jensen_shannon,
    noisy_shares,
    total_variation,
)


def test_shares_count_every_bin_even_the_empty_ones() -> None:
    np.testing.assert_allclose(bin_shares(np.array([0, 0, 2, 0]), 4), [0.75, 0, 0.25, 0])


@pytest.mark.parametrize(("bin_ids", "rule"), [([], "is empty"), ([4], "must lie in"), ([-1], "must lie in")])
def test_shares_refuse_ids_that_are_missing_or_of_other_bins(bin_ids: list[int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        bin_shares(np.array(bin_ids, dtype=np.int64), 4)


def test_negative_votes_count_as_none() -> None:
    np.testing.assert_allclose(noisy_shares(np.array([-5, 30, 10])), [0, 0.75, 0.25])


def test_votes_without_a_positive_one_say_nothing_about_any_bin() -> None:
    np.testing.assert_allclose(noisy_shares(np.array([-5, 0, -1, -9])), [0.25] * 4)


def test_distances_have_the_values_computed_by_hand() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert total_variation(p, q) == pytest.approx(0.5)
    # m = (3/8, 3/8, 1/4): KL(p, m) = log2(4/3), KL(q, m) = log2(2/3) / 2 + 1/2.
    by_hand = (math.log2(4 / 3) + math.log2(2 / 3) / 2 + 0.5) / 2
    assert jensen_shannon(p, q) == pytest.approx(by_hand)


@pytest.mark.parametrize("distance", [total_variation, jensen_shannon])
def test_distances_are_zero_for_equal_and_one_for_disjoint_shares_and_symmetric(distance: object) -> None:
    assert callable(distance)
    p, q, disjoint = np.array([0.7, 0.3, 0.0]), np.array([0.2, 0.5, 0.3]), np.array([0.0, 0.0, 1.0])
    assert distance(p, p) == 0
    assert distance(p, disjoint) == pytest.approx(1)
    assert distance(p, q) == pytest.approx(distance(q, p))
    order = [2, 0, 1]
    assert distance(p[order], q[order]) == pytest.approx(distance(p, q))


def test_the_frontier_score_is_that_of_the_published_code_on_the_same_histograms() -> None:
    published = importlib.import_module("mauve.compute_mauve")
    generator = np.random.default_rng(0)
    many, one = generator.dirichlet(np.full(50, 0.3), size=3), generator.dirichlet(np.full(50, 0.3))
    one[:5] = 0
    one /= one.sum()
    mixtures = np.linspace(1e-6, 1 - 1e-6, 25)
    for shares, score in zip(many, frontier_scores(many, one), strict=True):
        x, y = published.get_divergence_curve_for_multinomials(shares, one, mixtures, 5).T
        assert score == pytest.approx(published.compute_area_under_curve(x, y), rel=1e-6)


def test_the_frontier_score_is_one_for_equal_and_nearly_none_for_disjoint_shares() -> None:
    p, disjoint = np.array([0.7, 0.3, 0.0]), np.array([0.0, 0.0, 1.0])
    assert float(frontier_scores(p, p)) == pytest.approx(1)
    assert float(frontier_scores(p, disjoint)) < 0.05


def test_coverage_counts_only_bins_that_stand_out_of_the_noise() -> None:
    noisy_votes, counts = np.array([100, 50, 29, -3]), np.array([5, 0, 0, 7])
    assert coverage(noisy_votes, counts, noise_stddev=10) == 0.5
    assert coverage(noisy_votes, counts, noise_stddev=9) == pytest.approx(1 / 3)
    assert clearly_occupied_bins(noisy_votes, noise_stddev=9) == 3


def test_coverage_is_full_where_no_bin_stands_out() -> None:
    assert coverage(np.array([3, -2]), np.array([0, 1]), noise_stddev=10) == 1.0


@pytest.mark.parametrize("true_votes", [np.full(200, 300), np.arange(1, 201) * 3])
def test_noise_floor_is_what_a_simulation_of_the_noise_gives(true_votes: np.ndarray) -> None:
    generator = np.random.default_rng(7)
    shares, noise_stddev = true_votes / true_votes.sum(), 10.0
    simulated, predicted = [], []
    for _ in range(50):
        noisy_votes = np.rint(true_votes + generator.normal(0, noise_stddev, len(true_votes))).astype(np.int64)
        simulated.append(total_variation(shares, noisy_shares(noisy_votes)))
        predicted.append(expected_noise_total_variation(noisy_votes, noise_stddev))
    assert np.mean(predicted) == pytest.approx(np.mean(simulated), rel=0.05)


def test_noise_floor_overstates_rather_than_understates_where_most_bins_are_empty() -> None:
    generator = np.random.default_rng(7)
    true_votes = np.zeros(500, dtype=np.int64)
    true_votes[:50] = 200
    noisy_votes = np.rint(true_votes + generator.normal(0, 10, 500)).astype(np.int64)
    simulated = total_variation(true_votes / true_votes.sum(), noisy_shares(noisy_votes))
    assert simulated <= expected_noise_total_variation(noisy_votes, 10.0) <= 1.0


def test_noise_floor_is_one_when_nothing_is_left_of_the_votes() -> None:
    assert expected_noise_total_variation(np.array([-3, 2]), 10.0) == 1.0
    assert expected_noise_total_variation(np.array([1, 0]), 10.0) == 1.0


def test_a_set_in_proportion_to_the_votes_agrees_fully_whatever_its_size_and_order() -> None:
    noisy_votes, generator = np.array([40, 30, 30, -7]), np.random.default_rng(0)
    for factor in (1, 5):
        bin_ids = generator.permutation(np.repeat([0, 1, 2], np.array([4, 3, 3]) * factor))
        figures = agreement_figures(bin_ids, noisy_votes, noise_stddev=5.0)
        assert figures == pytest.approx({"total_variation": 0, "jensen_shannon": 0, "coverage": 1}, abs=1e-12)
