"""The fit of the log ratio against textbook formulas and votes that leave no doubt."""

import numpy as np
import pytest

from dp_assets.selection.log_ratio import Hyperparameters, fit_log_ratio, most_likely, prior_covariance
from tests.selection.log_ratios import CHOSEN, NOISE, NUM_BINS, VotesCase


def test_what_the_votes_explain_leaves_the_posterior_covariance() -> None:
    """Against the textbook's inverse."""
    case = VotesCase(0)
    prior = prior_covariance(case.centers, CHOSEN)
    explained = case.fit.explained(prior)
    textbook = np.linalg.inv(np.linalg.inv(prior) + np.diag(case.fit.root**2))
    assert prior - explained.T @ explained == pytest.approx(textbook, abs=1e-7)


def test_many_votes_without_noise_fix_the_log_ratio() -> None:
    case = VotesCase(0)
    expected = np.full(NUM_BINS, 1e6)
    fit = fit_log_ratio(expected * np.exp(case.of_bins), expected, case.centers, 0.0, CHOSEN)
    assert fit.log_ratio == pytest.approx(case.of_bins, abs=0.01)


def test_the_chosen_hyperparameters_explain_the_votes_better_than_the_priors_center() -> None:
    case = VotesCase(0)
    chosen = most_likely(case.votes, case.expected, case.centers, NOISE)
    found, center = (
        fit_log_ratio(case.votes, case.expected, case.centers, NOISE, each).evidence
        for each in (chosen, Hyperparameters())
    )
    assert found > center
