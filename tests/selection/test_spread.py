"""Stretched estimates are spread as the truth is; unstretched ones are not."""

import numpy as np
import numpy.typing as npt
import pytest

from dp_assets.arrays import Floats
from dp_assets.selection import spread
from dp_assets.selection.log_ratio import fit_log_ratio, kernel
from dp_assets.selection.smoothing import smooth_votes
from dp_assets.selection.spread import MOST_STRETCH, stretch_of_bins, stretch_of_rows
from tests.selection.log_ratios import CHOSEN, DIMENSION, EXPECTED, NOISE, NUM_BINS, VotesCase


def within(values: Floats, bins: npt.NDArray[np.int64]) -> float:
    """The variance of values about the mean of their bin."""
    means = np.bincount(bins, weights=values) / np.bincount(bins)
    return float(np.mean((values - means[bins]) ** 2))


def test_stretched_bins_are_spread_as_the_truth_is() -> None:
    """Sums over 24 cases. The ratios of variances lie near 0.59 and 0.88, with a standard error near 0.03: Laplace's
    approximation leaves the rest.
    """
    estimated = stretched = true = 0.0
    for seed in range(24):
        case = VotesCase(seed)
        stretch = stretch_of_bins(
            case.fit, CHOSEN, case.centers, weights=case.expected, unknown_share=np.ones(NUM_BINS)
        )
        estimated += np.var(case.fit.log_ratio)
        stretched += stretch**2 * np.var(case.fit.log_ratio)
        true += np.var(case.of_bins)
    assert estimated / true < 0.72
    assert 0.74 < stretched / true < 1.1


def test_stretched_rows_are_spread_within_their_bins_as_the_truth_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "MOST_STRETCH", np.inf)
    estimated = stretched = true = 0.0
    for seed in range(24):
        case = VotesCase(seed)
        means = kernel(case.rows, case.centers, CHOSEN) @ case.fit.coefficients
        stretch = stretch_of_rows(case.fit, CHOSEN, case.centers, case.rows.astype(np.float32), case.bins)
        estimated += within(means, case.bins)
        stretched += stretch**2 * within(means, case.bins)
        true += within(case.of_rows, case.bins)
    assert estimated / true < 0.6
    assert stretched / true == pytest.approx(1, abs=0.15)


def test_bins_whose_votes_are_known_exactly_are_not_stretched() -> None:
    case = VotesCase(1)
    nothing_unknown = np.zeros(NUM_BINS)
    assert stretch_of_bins(case.fit, CHOSEN, case.centers, weights=case.expected, unknown_share=nothing_unknown) == 1


def test_votes_that_say_nothing_are_not_stretched_without_bound() -> None:
    case = VotesCase(2)
    votes = np.full(NUM_BINS, EXPECTED)
    fit = fit_log_ratio(votes, case.expected, case.centers, 1e6, CHOSEN)
    assert stretch_of_bins(fit, CHOSEN, case.centers, weights=votes, unknown_share=np.ones(NUM_BINS)) <= MOST_STRETCH
    none = np.empty((0, DIMENSION), dtype=np.float32)
    assert stretch_of_rows(fit, CHOSEN, case.centers, none, np.empty(0, dtype=np.int64)) == 1


def test_the_stretch_of_bins_is_stated() -> None:
    case = VotesCase(3)
    smoothed = smooth_votes(
        case.votes.astype(np.int64),
        pool_counts=np.full(NUM_BINS, 20),
        centroids=case.centers.astype(np.float32),
        noise_stddev=NOISE,
    )
    assert smoothed.figures()["smoothing_stretch_of_bins"] == round(smoothed.stretch, 4) > 1
