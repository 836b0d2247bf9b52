"""The posterior of the exact votes given the noisy ones, as draws from which the estimated figures are computed.

The distance of a set to the noisy votes is not its distance to the real rows. A set that was made without the votes
seems too far away under strong noise, because the noise adds to the distance in every bin. A set that was resampled to
the votes seems too near, because it follows their noise too. The distance to the posterior of the exact votes corrects
both.

The model is empirical Bayes: exact votes x_k = N r_k m_k, where m are the shares of a released set that did not depend
on the votes (the pool), N is the sum of the noisy votes, and the ratios r_k >= 0 come from one unknown distribution. It
is fitted by maximum likelihood on a grid (the non-parametric estimate of Kiefer and Wolfowitz 1956, by expectation
maximization), given that y_k = x_k + noise of known standard deviation. The exact votes are then drawn from their
posterior. The parametric bootstrap of Laird and Louis (JASA 1987) adds the uncertainty of the fit itself: each batch of
draws uses a distribution of ratios that was fitted to votes simulated from the first fit.

All of it is post-processing of the released votes. Left out: the intervals concern the exact votes of these units, and
not a population of which the units are a sample.

Shapes: votes and shares (num_bins,), draws (num_draws, num_bins).
"""

import math
from dataclasses import dataclass

import numpy as np

from dp_assets.arrays import Floats, Integers

GRID_POINTS = 48
SMALLEST_RATIO, LEAST_LARGEST_RATIO = 0.02, 4.0
ITERATIONS = 200
REFITS, DRAWS_A_REFIT = 12, 32
HALF_A_ROW = 0.5


@dataclass(frozen=True)
class VotePosterior:
    """Draws of the exact shares, float64 (num_draws, num_bins), each of sum one."""

    shares: Floats

    @property
    def mean(self) -> Floats:
        """The mean share of each bin, (num_bins,)."""
        mean: Floats = self.shares.mean(axis=0)
        return mean


def vote_posterior(noisy_votes: Integers, *, noise_stddev: float, unvoted_counts: Integers, seed: int) -> VotePosterior:
    """Draw exact shares from their posterior given the noisy votes.

    Args:
      noisy_votes: the released votes, (num_bins,).
      noise_stddev: of one vote count, in votes; with 0 every draw is the votes themselves.
      unvoted_counts: rows in each bin of a released set that did not depend on the votes, such as the pool.
      seed: public; it seeds the draws of the posterior, and no privacy noise.

    Raises:
      ValueError: `unvoted_counts` has another length than the votes, or the noise is negative.
    """
    if len(unvoted_counts) != len(noisy_votes) or noise_stddev < 0:
        raise ValueError(
            "unvoted_counts must hold one number a bin of noisy_votes, and noise_stddev be at least 0; count the pool"
            " in the bins that the votes were cast on"
        )
    votes = np.asarray(noisy_votes, dtype=np.float64)
    if noise_stddev == 0:
        return VotePosterior(_as_shares(votes.clip(0)[None]))
    generator = np.random.default_rng(seed)
    model = _Model.of(votes, noise_stddev, unvoted_counts)
    fitted = model.fit(votes)
    draws = []
    for _ in range(REFITS):
        simulated = model.simulate(fitted, generator)
        draws.append(model.draw(votes, model.fit(simulated), DRAWS_A_REFIT, generator))
    return VotePosterior(_as_shares(np.concatenate(draws)))


@dataclass(frozen=True)
class _Model:
    """The empirical-Bayes model. `means` are the votes of each bin at ratio one, (num_bins,); `grid` (num_ratios,)."""

    means: Floats
    grid: Floats
    noise_stddev: float

    @staticmethod
    def of(votes: Floats, noise_stddev: float, unvoted_counts: Integers) -> "_Model":
        """Return the model for these votes, before it is fitted."""
        # A sum below its own noise does not estimate the number of units. The lower bounds keep the scale positive.
        total = max(float(votes.sum()), noise_stddev * math.sqrt(len(votes)), 1.0)
        smoothed = unvoted_counts + HALF_A_ROW
        means = total * smoothed / smoothed.sum()
        largest = max(LEAST_LARGEST_RATIO, float(((votes.clip(0) + noise_stddev) / means).max()))
        grid = np.concatenate([[0.0], np.geomspace(SMALLEST_RATIO, largest, GRID_POINTS - 1)])
        return _Model(means, grid, noise_stddev)

    def fit(self, votes: Floats) -> Floats:
        """Return the maximum-likelihood weights of the grid's ratios, (num_ratios,)."""
        likelihoods = self._likelihoods(votes)
        weights = np.full(len(self.grid), 1 / len(self.grid))
        for _ in range(ITERATIONS):
            weights = weights * (likelihoods / (likelihoods @ weights)[:, None]).mean(axis=0)
        fitted: Floats = weights / weights.sum()
        return fitted

    def simulate(self, weights: Floats, generator: np.random.Generator) -> Floats:
        """Return noisy votes (num_bins,) for ratios drawn from `weights`."""
        ratios = generator.choice(self.grid, size=len(self.means), p=weights)
        noisy: Floats = self.means * ratios + generator.normal(0, self.noise_stddev, len(self.means))
        return noisy

    def draw(self, votes: Floats, weights: Floats, count: int, generator: np.random.Generator) -> Floats:
        """Return draws of the exact votes from their posterior, (count, num_bins)."""
        cumulated = (self._likelihoods(votes) * weights).cumsum(axis=1)
        levels = generator.random((count, len(votes))) * cumulated[:, -1]
        indices = (cumulated[None] < levels[:, :, None]).sum(axis=2)
        exact: Floats = self.means * self.grid[indices.clip(max=len(self.grid) - 1)]
        return exact

    def _likelihoods(self, votes: Floats) -> Floats:
        """Return the likelihood of each bin's votes at each ratio, (num_bins, num_ratios), up to a factor per bin."""
        exponents = -((votes[:, None] - self.means[:, None] * self.grid) ** 2) / (2 * self.noise_stddev**2)
        likelihoods: Floats = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        return likelihoods


def _as_shares(votes: Floats) -> Floats:
    """Scale each row to sum one. A row without votes gets equal shares."""
    totals = votes.sum(axis=1, keepdims=True)
    shares: Floats = np.where(totals > 0, votes / np.where(totals > 0, totals, 1), 1 / votes.shape[1])
    return shares
