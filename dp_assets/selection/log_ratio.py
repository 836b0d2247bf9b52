"""The Gaussian process behind smoothing: a log density ratio over the space of vectors, fitted to noisy votes.

    f ~ GP(0, k),  k(x, y) = 4 + a^2 x.y + b^2 exp(-|x - y|^2 / 2 l^2),  f_k = f(m_k) + e_k,  e_k ~ Normal(0, t^2)
    v_k ~ Normal(mu_k, s^2 + mu_k),  mu_k = expected_k exp(f_k)

for votes v of bins with centroids m, noise of variance s^2, and the votes `expected` for f = 0. The mode of f is found
by Fisher scoring. The hyperparameters a, b, l, t maximize Laplace's approximation of the marginal likelihood (Rasmussen
and Williams, "Gaussian Processes for Machine Learning", 2006, sections 3.4 and 5.5) under weak log-normal priors.
"""

from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from dp_assets.arrays import Floats, Vectors

Reals = TypeVar("Reals", Floats, Vectors)

CONSTANT_VARIANCE = 4.0
"""The prior variance of the level of f. It is large because shares are normalized afterwards."""
JITTER = 1e-6
ROUNDING_VARIANCE = 0.25
"""The variance that rounding adds to a count. It keeps the Gaussian approximation proper where there is neither
noise nor votes."""
MOST_EVALUATIONS = 48
MOST_SCORING_STEPS = 60
MOST_HALVINGS = 11
PRIOR_LOG_STDDEV = 1.0


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters a, b, l and t, in this order.

    a, b and t are standard deviations of log ratios; l is a distance between vectors of length one.
    """

    linear: float = 1.0
    local: float = 1.0
    distance: float = 0.5
    bin: float = 0.2


@dataclass(frozen=True)
class Fit:
    """The mode f (num_bins,), its coefficients S^-1 f, and the log marginal likelihood `evidence`.

    With S the prior covariance of f over the bins and W the Fisher information of f at the mode, `root` is the diagonal
    of W^(1/2), and `factor` is the lower triangle L of I + W^(1/2) S W^(1/2) = L L^T.
    """

    log_ratio: Floats
    coefficients: Floats
    evidence: float
    root: Floats
    factor: Floats

    def explained(self, covariances: Floats) -> Floats:
        """Return Z (num_bins, n), where Z^T Z is the part of the prior covariance of n values of f that votes explain.

        `covariances` (num_bins, n) are the prior covariances of f over the bins with these values. The posterior
        covariance of the values is the prior covariance minus Z^T Z (Rasmussen and Williams, equation 3.29).
        """
        found: Floats = solve_triangular(self.factor, self.root[:, None] * covariances, lower=True)
        return found


def most_likely(votes: Floats, expected: Floats, centers: Floats, noise_stddev: float) -> Hyperparameters:
    """Return the hyperparameters that maximize marginal likelihood times prior.

    A simplex search starts at the center of the prior. Each evaluation starts Fisher scoring from the last mode.
    """
    center = np.log(list(asdict(Hyperparameters()).values()))
    start = np.zeros(len(votes))

    def loss(logs: Floats) -> float:
        nonlocal start
        tried = Hyperparameters(*np.exp(logs).tolist())
        found = fit_log_ratio(votes, expected, centers, noise_stddev, tried, start=start)
        start = found.coefficients
        return float(((logs - center) ** 2).sum() / (2 * PRIOR_LOG_STDDEV**2) - found.evidence)

    corners = center + np.vstack([np.zeros(len(center)), 0.7 * np.eye(len(center))])
    search = {"maxfev": MOST_EVALUATIONS, "xatol": 0.05, "fatol": 0.1, "initial_simplex": corners}
    found = minimize(loss, center, method="Nelder-Mead", options=search)
    return Hyperparameters(*np.exp(found.x).tolist())


def fit_log_ratio(
    votes: Floats,
    expected: Floats,
    centers: Floats,
    noise_stddev: float,
    chosen: Hyperparameters,
    *,
    start: Floats | None = None,
) -> Fit:
    """Return Laplace's approximation at the mode of f, found by Fisher scoring with step halving.

    S = k + t^2 I, W is the Fisher information of f, and B = I + W^(1/2) S W^(1/2). A step goes to the coefficients
    a = S^-1 f of the f that solves (S^-1 + W) f = W f_old + gradient. Solving with B is stable even if W is near 0.

    Args:
      votes: noisy, (num_bins,).
      expected: the votes for f = 0, (num_bins,), positive.
      centers: the centroids, (num_bins, d).
      noise_stddev: of the noise on a bin's votes, in votes.
      chosen: the hyperparameters.
      start: coefficients to start from; zeros if None.
    """
    prior = prior_covariance(centers, chosen)
    floor = noise_stddev**2 + ROUNDING_VARIANCE
    coefficients = np.zeros(len(votes)) if start is None else start
    log_ratio = prior @ coefficients
    value = _penalized(coefficients, prior, votes, expected, floor)
    for _ in range(MOST_SCORING_STEPS):
        gradient, information = _score(log_ratio, votes, expected, floor)
        root = np.sqrt(information)
        factor = cho_factor(np.eye(len(votes)) + root[:, None] * prior * root, lower=True)
        pull = information * log_ratio + gradient
        step = pull - root * cho_solve(factor, root * (prior @ pull)) - coefficients
        for halvings in range(MOST_HALVINGS):
            tried = coefficients + 0.5**halvings * step
            value_after = _penalized(tried, prior, votes, expected, floor)
            if value_after >= value:
                coefficients = tried
                break
        log_ratio = prior @ coefficients
        gained, value = value_after - value, max(value, value_after)
        if gained < 1e-4:
            break
    log_determinant = 2 * np.log(np.diag(factor[0])).sum()
    return Fit(log_ratio, coefficients, value - log_determinant / 2, root, np.tril(factor[0]))


def _penalized(coefficients: Floats, prior: Floats, votes: Floats, expected: Floats, floor: float) -> float:
    log_ratio = prior @ coefficients
    return _log_likelihood(log_ratio, votes, expected, floor) - float(coefficients @ log_ratio) / 2


def _expected_votes(log_ratio: Floats, expected: Floats) -> Floats:
    """Return mu. Log ratios are limited to [-30, 20] so that they do not overflow."""
    mean: Floats = expected * np.exp(np.clip(log_ratio, -30.0, 20.0))
    return mean


def _log_likelihood(log_ratio: Floats, votes: Floats, expected: Floats, floor: float) -> float:
    """Return the log likelihood of the votes under Normal(mu, floor + mu), up to a constant."""
    mean = _expected_votes(log_ratio, expected)
    variance = floor + mean
    return float(-(np.log(variance) + (votes - mean) ** 2 / variance).sum() / 2)


def _score(log_ratio: Floats, votes: Floats, expected: Floats, floor: float) -> tuple[Floats, Floats]:
    """Return the gradient of the log likelihood in f, and the Fisher information, (num_bins,) each."""
    mean = _expected_votes(log_ratio, expected)
    variance = floor + mean
    residual = votes - mean
    gradient = mean * (residual / variance - 0.5 / variance + residual**2 / (2 * variance**2))
    return gradient, mean**2 * (1 / variance + 1 / (2 * variance**2)) + 1e-12


def prior_covariance(centers: Floats, chosen: Hyperparameters) -> Floats:
    """Return S, the prior covariance of the f_k, their e_k included: (num_bins, num_bins)."""
    return kernel(centers, centers, chosen) + (chosen.bin**2 + JITTER) * np.eye(len(centers))


def kernel(first: Reals, second: Reals, chosen: Hyperparameters) -> Reals:
    """Return k(x, y) of each pair, (n, m), in the precision of the inputs."""
    products = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * products
    local = np.exp(-np.maximum(squares, 0.0) / (2 * chosen.distance**2))
    values: Reals = CONSTANT_VARIANCE + chosen.linear**2 * products + chosen.local**2 * local
    return values
