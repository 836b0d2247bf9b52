"""Draws over coarser bins."""

import numpy as np

from benchmarks.agreement import coarser
from dp_assets.evaluation.vote_posterior import VotePosterior


def test_draws_over_coarser_bins_are_sums() -> None:
    summed = coarser(VotePosterior(np.array([[0.1, 0.2, 0.7]])), np.array([0, 1, 0])).shares
    np.testing.assert_allclose(summed, [[0.8, 0.2]])
