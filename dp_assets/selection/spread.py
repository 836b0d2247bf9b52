"""How much wider a log density ratio is spread than the estimate of it: the stretch of constrained Bayes.

The posterior means of many values, each the best guess of its own, are spread less than the values are, by what is not
known of them. Where the distribution of the values counts, and here it does, since rows are drawn by them, the means
are stretched about their mean until both spreads agree: by sqrt(1 + unknown / known), the mean posterior variance over
the variance of the means (Louis, "Estimating a Population of Parameter Values Using Bayes and Empirical Bayes Methods",
JASA 79, 1984; Ghosh, "Constrained Bayes Estimation with Applications", JASA 87, 1992).

Both variances are about a mean over the pool, of all bins or of the rows of one bin, so a level that all share does not
count. The posterior is Laplace's approximation, by which a little too little is unknown. Where next to nothing is
known, the stretch is bounded: what would be stretched is noise.
"""

import math

import numpy as np

from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.selection.log_ratio import Fit, Hyperparameters, kernel, prior_covariance

MOST_STRETCH = 4.0
ROUNDING = 1e-9
"""A known part smaller than this is what rounding leaves of none."""
SAMPLED_ROWS = 2_048
"""Of the pool, for the spread within bins: evenly spaced, so nothing depends on a seed."""


def stretch_of_bins(
    fit: Fit, chosen: Hyperparameters, centers: Floats, *, weights: Floats, unknown_share: Floats
) -> float:
    """The stretch of the bins' log ratios.

    Args:
      weights: of each bin in both means, (num_bins,).
      unknown_share: what is left of each f_k's deviation once the bin's own vote is taken into account, (num_bins,).
    """
    shares = weights / weights.sum()
    prior = prior_covariance(centers, chosen)
    explained = fit.explained(prior)
    covariance = (prior - explained.T @ explained) * unknown_share * unknown_share[:, None]
    unknown = shares @ np.diag(covariance) - shares @ covariance @ shares
    known = shares @ fit.log_ratio**2 - (shares @ fit.log_ratio) ** 2
    return _stretch(float(unknown), float(known))


def stretch_of_rows(fit: Fit, chosen: Hyperparameters, centers: Floats, vectors: Vectors, bins: Integers) -> float:
    """The stretch of the log ratios of rows about the mean of their bin: of `vectors` (n, d) in `bins` (n,)."""
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
    """The sum of squared distances of the columns of `values` (m, n) to the mean of their group."""
    sums = np.zeros((groups.max(initial=-1) + 1, len(values)))
    np.add.at(sums, groups, values.T)
    return float((values**2).sum() - ((sums**2).sum(axis=1) / np.bincount(groups)).sum())


def _scatter_of_prior(covariance: Floats, groups: Integers) -> float:
    """The expectation of `_scatter` of a vector of that covariance (n, n)."""
    same = groups[:, None] == groups
    return float(np.trace(covariance) - ((covariance * same).sum(axis=1) / np.bincount(groups)[groups]).sum())
