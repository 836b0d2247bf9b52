"""Variance-corrected shrinkage of noisy votes (constrained empirical Bayes): the default resampling rule's estimate.

It estimates the exact votes of each bin, and weights for the rows within a bin.

Model. The pool has q_k rows in bin k with centroid m_k; N is the sum of the noisy votes v.

    mu_k = N q_k / sum(q) exp(f_k)            expected votes: the pool's share times a smooth density ratio
    c_k ~ Poisson(mu_k),  v_k = c_k + z_k     exact and noisy votes, with z_k of variance s^2, the public noise

This is a log-Gaussian Cox process (Moller, Syversveen, Waagepetersen, 1998) observed with noise; `log_ratio.py` fits
it. The votes themselves determine how much bins share information, through the fitted hyperparameters. The estimate of
the exact votes is E[c_k | v_k, mu_k] = mu_k + r_k (v_k - mu_k), r_k = mu_k / (mu_k + s^2), at least 0.

Such estimates are each the best for their own bin, but their variance is too small: it is that of f minus the posterior
uncertainty. A set drawn by them would be too similar to the pool. So they are stretched away from the pool until their
variance is that of f (`spread.py`; constrained Bayes, Louis, 1984), with one factor for bins and another for rows
within bins.

- Without noise the result is v.
- As noise grows the result approaches the pool's own distribution, more slowly because of the stretch.
- Negative votes are used like all others.

Within a bin, a row x has weight exp(stretch E[f(x)]), so rows towards bins with more votes than the pool's share are
preferred.

Privacy. The inputs are the noisy votes (released), the noise's standard deviation and the constants below (public), and
centroids, vectors and counts of the pool (released). So this is post-processing of the votes: it costs no privacy, and
any number of its results may be published.

Cost: num_bins^3 in time and num_bins^2 in memory for one fit, rows x num_bins x d in time for the weights. Left out:
fitting the ratio to single rows of the pool instead of centroids, and soft bin assignments.
"""

from dataclasses import asdict, dataclass

import numpy as np

from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.selection.log_ratio import Fit, Hyperparameters, fit_log_ratio, kernel, most_likely
from dp_assets.selection.spread import stretch_of_bins, stretch_of_rows

EMPTY_BIN_ROWS = 0.5
"""The number of rows that an empty bin of the pool counts as, so that votes in it have a finite likelihood."""
MOST_BINS_SEARCHED = 400
"""The most bins whose votes choose the hyperparameters. The marginal likelihood of a subset is exact for a Gaussian
process."""
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Smoothed:
    """The estimated exact votes, float64 (num_bins,), not negative and not all 0, and the fitted model.

    The coefficients of `fit` (num_bins,) give the smooth part of f: E[f(x)] = sum over k of k(x, m_k) coefficients_k.
    """

    votes: Floats
    centroids: Floats
    fit: Fit
    hyperparameters: Hyperparameters
    stretch: float

    def figures(self) -> dict[str, float]:
        """Return the chosen hyperparameters and the stretch of bins, by public names."""
        chosen = asdict(self.hyperparameters) | {"stretch_of_bins": self.stretch}
        return {f"smoothing_{name}": round(value, 4) for name, value in chosen.items()}

    def log_ratios(self, vectors: Vectors) -> Floats:
        """Return E[f(x)] of each row of `vectors` (n, d), float64 (n,), up to a constant, from single precision."""
        centers, coefficients = self.centroids.astype(np.float32), self.fit.coefficients.astype(np.float32)
        blocks = [
            kernel(vectors[start : start + BLOCK_ROWS], centers, self.hyperparameters) @ coefficients
            for start in range(0, len(vectors), BLOCK_ROWS)
        ]
        return np.concatenate([np.empty(0), *blocks])

    def stretch_of_rows(self, vectors: Vectors, bins: Integers) -> float:
        """Return the factor from log ratios to log weights of rows, estimated from a sample of the rows.

        Args:
          vectors: float32 (n, d), rows of the pool.
          bins: the bin of each, int64 (n,).
        """
        return stretch_of_rows(self.fit, self.hyperparameters, self.centroids, vectors, bins)


def smooth_votes(noisy_votes: Integers, *, pool_counts: Integers, centroids: Vectors, noise_stddev: float) -> Smoothed:
    """Estimate the exact votes.

    Args:
      noisy_votes: released, int64 (num_bins,).
      pool_counts: rows of the pool in each bin, int64 (num_bins,).
      centroids: float32 (num_bins, d).
      noise_stddev: of the noise on a bin's votes, in votes; 0 for none.

    Raises:
      ValueError: the shapes differ, or the pool has no row.
    """
    if not len(noisy_votes) == len(pool_counts) == len(centroids):
        raise ValueError("noisy_votes, pool_counts and centroids must have one entry for each bin")
    if not pool_counts.any():
        raise ValueError("pool_counts are all 0: the pool is empty; sample one first")
    centers, votes = centroids.astype(np.float64), noisy_votes.astype(np.float64)
    expected = _votes_of_the_pool(votes, pool_counts, noise_stddev)
    some = np.unique(np.linspace(0, len(votes) - 1, MOST_BINS_SEARCHED).astype(np.int64))
    chosen = most_likely(votes[some], expected[some], centers[some], noise_stddev)
    fit = fit_log_ratio(votes, expected, centers, noise_stddev, chosen)
    mean = expected * np.exp(fit.log_ratio)
    known = mean / (mean + noise_stddev**2)
    estimate = np.maximum(0.0, mean + known * (votes - mean))
    stretch = stretch_of_bins(fit, chosen, centers, weights=expected, unknown_share=1 - known)
    stretched = expected * ((estimate if estimate.any() else mean) / expected) ** stretch
    return Smoothed(stretched, centers, fit, chosen, stretch)


def _votes_of_the_pool(votes: Floats, pool_counts: Integers, noise_stddev: float) -> Floats:
    """Return N q_k / sum(q): each bin's expected votes for f = 0, all positive.

    N is at least one standard deviation of its own noise, and an empty bin counts as `EMPTY_BIN_ROWS` rows.
    """
    total = max(votes.sum(), noise_stddev * np.sqrt(len(votes)), 1.0)
    expected: Floats = total * np.maximum(pool_counts, EMPTY_BIN_ROWS) / pool_counts.sum()
    return expected
