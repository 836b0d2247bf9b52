"""Bins with rows, a log ratio drawn from the prior, and votes for it."""

import numpy as np

from dp_assets.arrays import Floats
from dp_assets.selection.log_ratio import Fit, Hyperparameters, fit_log_ratio, kernel

CHOSEN = Hyperparameters(linear=0.4, local=0.5, distance=0.6, bin=0.2)


NUM_BINS, ROWS_A_BIN, DIMENSION, EXPECTED, NOISE = 60, 12, 6, 40.0, 25.0


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class VotesCase:
    """Bins with rows around their centroids, a log ratio drawn from the prior, noisy votes and the fit to them."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.centers = unit(rng.normal(size=(NUM_BINS, DIMENSION)))
        self.bins = np.repeat(np.arange(NUM_BINS), ROWS_A_BIN)
        self.rows = unit(self.centers[self.bins] + 0.4 * rng.normal(size=(len(self.bins), DIMENSION)))
        points = np.concatenate([self.centers, self.rows])
        smooth = np.linalg.cholesky(kernel(points, points, CHOSEN) + 1e-8 * np.eye(len(points)))
        drawn = smooth @ rng.normal(size=len(points))
        drawn -= drawn[:NUM_BINS].mean()  # a level that all share is none of the spread
        self.of_bins = drawn[:NUM_BINS] + CHOSEN.bin * rng.normal(size=NUM_BINS)
        self.of_rows = drawn[NUM_BINS:]
        self.expected = np.full(NUM_BINS, EXPECTED)
        counts = rng.poisson(self.expected * np.exp(self.of_bins))
        self.votes = np.rint(counts + NOISE * rng.normal(size=NUM_BINS))
        self.fit: Fit = fit_log_ratio(self.votes, self.expected, self.centers, NOISE, CHOSEN)
