"""Variance correction of estimated log density ratios: the stretch of constrained Bayes.

Posterior means are each the best estimate of their own value, but together they vary less than the values, by the
posterior variance. Rows are drawn by these values, so their distribution matters. Therefore the means are stretched
about their mean by sqrt(1 + unknown / known), which makes both variances equal. Here `unknown` is the mean posterior
variance, and `known` the variance of the means (Louis, "Estimating a Population of Parameter Values Using Bayes and
Empirical Bayes Methods", JASA 79, 1984; Ghosh, "Constrained Bayes Estimation with Applications", JASA 87, 1992).

Both variances are about a mean over the pool, of all bins or of the rows of one bin, so a common level has no effect.
The posterior is Laplace's approximation, which slightly underestimates `unknown`. The stretch is bounded, because with
almost nothing known it would amplify noise.
"""

import math

import numpy as np

from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.selection.log_ratio import Fit, Hyperparameters, kernel, prior_covariance

MOST_STRETCH = 4.0
ROUNDING = 1e-9
"""A known part below this is rounding error and counts as zero."""
SAMPLED_ROWS = 2_048
"""The number of rows of the pool from which the spread within bins is computed. They are evenly spaced, so no seed
matters."""


def stretch_of_bins(
    fit: Fit, chosen: Hyperparameters, centers: Floats, *, weights: Floats, unknown_share: Floats
) -> float:
    """Return the stretch of the bins' log ratios.

    Args:
      fit: the fitted log ratios.
      chosen: the hyperparameters of the fit.
      centers: the centroids, (num_bins, d).
      weights: of each bin in both means, (num_bins,).
      unknown_share: the fraction of each f_k's standard deviation that is left after the bin's own vote, (num_bins,).
    """
    shares = weights / weights.sum()
    prior = prior_covariance(centers, chosen)
    explained = fit.explained(prior)
    covariance = (prior - explained.T @ explained) * unknown_share * unknown_share[:, None]
    unknown = shares @ np.diag(covariance) - shares @ covariance @ shares
    known = shares @ fit.log_ratio**2 - (shares @ fit.log_ratio) ** 2
    return _stretch(float(unknown), float(known))


def stretch_of_rows(fit: Fit, chosen: Hyperparameters, centers: Floats, vectors: Vectors, bins: Integers) -> float:
    """Return the stretch of the log ratios of rows about the mean of their bin, from at most `SAMPLED_ROWS` rows.

    Args:
      fit: the fitted log ratios.
      chosen: the hyperparameters of the fit.
      centers: the centroids, (num_bins, d).
      vectors: float32 (n, d), rows of the pool.
      bins: the bin of each, int64 (n,).
    """
    some = np.unique(np.linspace(0, max(len(bins) - 1, 0), SAMPLED_ROWS).astype(np.int64))[: len(bins)]
    rows, places = vectors[some].astype(np.float64), np.unique(bins[some], return_inverse=True)[1]
    covariances = kernel(centers, rows, chosen)
    means, explained = fit.coefficients @ covariances, fit.explained(covariances)
    unknown = _scatter_of_prior(kernel(rows, rows, chosen), places) - _scatter(explained, places)
    return _stretch(unknown, _scatter(means[None], places))


def _stretch(unknown: float, known: float) -> float:
    if known <= ROUNDING * unknown or unknown <= 0:
        return 1.0
    return min(MOST_STRETCH, math.sqrt(1 + unknown / known))


def _scatter(values: Floats, groups: Integers) -> float:
    """Return the sum of squared distances of the columns of `values` (m, n) from the mean of their group."""
    sums = np.zeros((groups.max(initial=-1) + 1, len(values)))
    np.add.at(sums, groups, values.T)
    return float((values**2).sum() - ((sums**2).sum(axis=1) / np.bincount(groups)).sum())


def _scatter_of_prior(covariance: Floats, groups: Integers) -> float:
    """Return the expected `_scatter` of a random vector with this covariance (n, n)."""
    same = groups[:, None] == groups
    return float(np.trace(covariance) - ((covariance * same).sum(axis=1) / np.bincount(groups)[groups]).sum())
