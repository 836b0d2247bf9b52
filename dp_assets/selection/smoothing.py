"""Smoothing noisy votes: the default rule's estimate of how many units want each bin, and of which rows in it.

Model. The pool has q_k rows in bin k, of centroid m_k; N is the sum of the noisy votes v.

    f ~ GP(0, k),  k(x, y) = 4 + a^2 x.y + b^2 exp(-|x - y|^2 / 2 l^2),  f_k = f(m_k) + e_k,  e_k ~ Normal(0, t^2)
    mu_k = N q_k / sum(q) exp(f_k)            expected votes: the pool's own share times a smooth density ratio
    c_k ~ Poisson(mu_k),  v_k = c_k + z_k     exact and noisy votes, with z_k of variance s^2, the public noise
    v_k ~ Normal(mu_k, s^2 + mu_k)            approximately

This is a log-Gaussian Cox process (Moller, Syversveen, Waagepetersen, 1998) seen through noise. The posterior mode of f
comes from Fisher scoring, and the hyperparameters a, b, l, t from Laplace's approximation of the marginal likelihood
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, sections 3.4 and 5.5) under weak log-normal
priors. So the votes themselves say how far bins may learn from one another, which is the resolution that is used. The
estimate of the exact votes is E[c_k | v_k, mu_k] = mu_k + mu_k / (mu_k + s^2) (v_k - mu_k), at least 0. Without noise
it is v, as noise grows it becomes the pool's own distribution, and negative votes are evidence like any other.

Within a bin, a row x weighs exp(E[f(x)]): rows towards bins that are wanted more come first.

Privacy. Read here are the noisy votes (released), the noise's standard deviation and the seedless constants below
(public), and centroids, vectors and counts of the pool (released). So this is post-processing of the votes: it costs
nothing, and any number of its results may be shown.

Cost: num_bins^3 in time and num_bins^2 in memory for one fit, rows x num_bins x d for the weights. Left out: fitting
the ratio to single rows of the pool instead of centroids, and soft memberships of bins.
"""

from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Reals = TypeVar("Reals", Floats, Vectors)

CONSTANT_VARIANCE = 4.0
"""Of the level of f, which is free: the shares are normalised afterwards."""
JITTER = 1e-6
ROUNDING_VARIANCE = 0.25
"""Of counts: keeps the Gaussian approximation proper where neither noise nor votes are."""
EMPTY_BIN_ROWS = 0.5
"""What an empty bin of the pool counts for, so that votes in it can be explained at all."""
MOST_BINS_SEARCHED = 400
"""Bins whose votes choose the hyperparameters; a subset's marginal likelihood is exact for a Gaussian process."""
MOST_EVALUATIONS = 48
MOST_SCORING_STEPS = 60
MOST_HALVINGS = 11
PRIOR_LOG_STDDEV = 1.0
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Hyperparameters:
    """a, b and t are standard deviations of log ratios, l is a distance between vectors of length one."""

    linear: float = 1.0
    local: float = 1.0
    distance: float = 0.5
    bin: float = 0.2


@dataclass(frozen=True)
class Smoothed:
    """Estimated exact votes, float64 (num_bins,), not negative and not all 0, and what they rest on.

    `coefficients` (num_bins,) give the smooth part of f: E[f(x)] = sum over k of k(x, m_k) coefficients_k.
    """

    votes: Floats
    coefficients: Floats
    centroids: Floats
    hyperparameters: Hyperparameters

    def figures(self) -> dict[str, float]:
        """The chosen hyperparameters, by public names."""
        return {f"smoothing_{name}": round(value, 4) for name, value in asdict(self.hyperparameters).items()}

    def log_weights(self, vectors: Vectors) -> Floats:
        """E[f(x)] of each row of `vectors` (n, d), float64 (n,), up to a constant, computed in single precision.

        Rows of one bin are to be drawn in proportion to the exponentials.
        """
        centres, coefficients = self.centroids.astype(np.float32), self.coefficients.astype(np.float32)
        blocks = [
            _kernel(vectors[start : start + BLOCK_ROWS], centres, self.hyperparameters) @ coefficients
            for start in range(0, len(vectors), BLOCK_ROWS)
        ]
        return np.concatenate([np.empty(0), *blocks])


def smooth_votes(noisy_votes: Integers, *, pool_counts: Integers, centroids: Vectors, noise_stddev: float) -> Smoothed:
    """The estimate of the exact votes.

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
    centres, votes = centroids.astype(np.float64), noisy_votes.astype(np.float64)
    expected = _votes_of_the_pool(votes, pool_counts, noise_stddev)
    some = np.unique(np.linspace(0, len(votes) - 1, MOST_BINS_SEARCHED).astype(np.int64))
    chosen = _most_likely(votes[some], expected[some], centres[some], noise_stddev)
    fit = _fit(votes, expected, centres, noise_stddev, chosen)
    mean = expected * np.exp(fit.log_ratio)
    estimate = np.maximum(0.0, mean + mean / (mean + noise_stddev**2) * (votes - mean))
    return Smoothed(estimate if estimate.any() else mean, fit.coefficients, centres, chosen)


def _votes_of_the_pool(votes: Floats, pool_counts: Integers, noise_stddev: float) -> Floats:
    """N q_k / sum(q): each bin's votes if units wanted what the pool has; N at least a deviation of its own noise."""
    total = max(votes.sum(), noise_stddev * np.sqrt(len(votes)), 1.0)
    expected: Floats = total * np.maximum(pool_counts, EMPTY_BIN_ROWS) / pool_counts.sum()
    return expected


@dataclass(frozen=True)
class _Fit:
    """The mode f (num_bins,), the coefficients S^-1 f of it, and the log marginal likelihood."""

    log_ratio: Floats
    coefficients: Floats
    evidence: float


def _most_likely(votes: Floats, expected: Floats, centres: Floats, noise_stddev: float) -> Hyperparameters:
    """The hyperparameters of the largest marginal likelihood times prior, found by a simplex search from the prior's
    centre. Each search step starts from the mode that the last one found.
    """
    centre = np.log(list(asdict(Hyperparameters()).values()))
    start = np.zeros(len(votes))

    def loss(logs: Floats) -> float:
        nonlocal start
        fit = _fit(votes, expected, centres, noise_stddev, Hyperparameters(*np.exp(logs).tolist()), start=start)
        start = fit.coefficients
        return float(((logs - centre) ** 2).sum() / (2 * PRIOR_LOG_STDDEV**2) - fit.evidence)

    corners = centre + np.vstack([np.zeros(len(centre)), 0.7 * np.eye(len(centre))])
    search = {"maxfev": MOST_EVALUATIONS, "xatol": 0.05, "fatol": 0.1, "initial_simplex": corners}
    found = minimize(loss, centre, method="Nelder-Mead", options=search)
    return Hyperparameters(*np.exp(found.x).tolist())


def _fit(
    votes: Floats,
    expected: Floats,
    centres: Floats,
    noise_stddev: float,
    chosen: Hyperparameters,
    *,
    start: Floats | None = None,
) -> _Fit:
    """Laplace's approximation at the mode, by Fisher scoring with step halving.

    With S = k + t^2 I, W the Fisher information of f and B = I + W^(1/2) S W^(1/2), a step goes to the a of f = S a
    that solves (S^-1 + W) f = W f + gradient; B keeps it stable where W is near 0.
    """
    prior = _kernel(centres, centres, chosen) + (chosen.bin**2 + JITTER) * np.eye(len(votes))
    floor = noise_stddev**2 + ROUNDING_VARIANCE
    coefficients = np.zeros(len(votes)) if start is None else start
    log_ratio = prior @ coefficients
    value = _penalised(coefficients, prior, votes, expected, floor)
    for _ in range(MOST_SCORING_STEPS):
        gradient, information = _score(log_ratio, votes, expected, floor)
        root = np.sqrt(information)
        factor = cho_factor(np.eye(len(votes)) + root[:, None] * prior * root, lower=True)
        pull = information * log_ratio + gradient
        step = pull - root * cho_solve(factor, root * (prior @ pull)) - coefficients
        for halvings in range(MOST_HALVINGS):
            tried = coefficients + 0.5**halvings * step
            value_after = _penalised(tried, prior, votes, expected, floor)
            if value_after >= value:
                coefficients = tried
                break
        log_ratio = prior @ coefficients
        gained, value = value_after - value, max(value, value_after)
        if gained < 1e-4:
            break
    log_determinant = 2 * np.log(np.diag(factor[0])).sum()
    return _Fit(log_ratio, coefficients, value - log_determinant / 2)


def _penalised(coefficients: Floats, prior: Floats, votes: Floats, expected: Floats, floor: float) -> float:
    log_ratio = prior @ coefficients
    return _log_likelihood(log_ratio, votes, expected, floor) - float(coefficients @ log_ratio) / 2


def _expected_votes(log_ratio: Floats, expected: Floats) -> Floats:
    """mu; ratios beyond e^20 are as good as that, and must not overflow."""
    mean: Floats = expected * np.exp(np.clip(log_ratio, -30.0, 20.0))
    return mean


def _log_likelihood(log_ratio: Floats, votes: Floats, expected: Floats, floor: float) -> float:
    """Of Normal(mu, floor + mu), up to a constant."""
    mean = _expected_votes(log_ratio, expected)
    variance = floor + mean
    return float(-(np.log(variance) + (votes - mean) ** 2 / variance).sum() / 2)


def _score(log_ratio: Floats, votes: Floats, expected: Floats, floor: float) -> tuple[Floats, Floats]:
    """The gradient of the log likelihood in f, and its Fisher information."""
    mean = _expected_votes(log_ratio, expected)
    variance = floor + mean
    residual = votes - mean
    gradient = mean * (residual / variance - 0.5 / variance + residual**2 / (2 * variance**2))
    return gradient, mean**2 * (1 / variance + 1 / (2 * variance**2)) + 1e-12


def _kernel(first: Reals, second: Reals, chosen: Hyperparameters) -> Reals:
    """k(x, y) of each pair, (n, m), in the precision of both."""
    products = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * products
    local = np.exp(-np.maximum(squares, 0.0) / (2 * chosen.distance**2))
    kernel: Reals = CONSTANT_VARIANCE + chosen.linear**2 * products + chosen.local**2 * local
    return kernel
