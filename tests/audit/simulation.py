"""Simulated attacks on mechanisms whose epsilon is known, and how often a valid bound may be wrong."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, log_ndtr
from scipy.stats import binom, norm

from dp_assets.arrays import Floats
from dp_assets.audit.trade_off import TradeOffCurve

SIGNIFICANCE = 0.05
RUNS = 2000
MOST_ERRORS = int(binom.isf(1e-6, RUNS, SIGNIFICANCE))
"""A bound that errs in 5 % of runs errs in more than this many of `RUNS` with probability below 1e-6."""

Counts = npt.NDArray[np.int64]


def errors(counts: Counts, bound: Callable[[int], float], truth: float) -> int:
    """In how many runs the bound of the run's count exceeds the truth."""
    values, runs = np.unique(counts, return_counts=True)
    return int(sum(times for value, times in zip(values, runs, strict=True) if bound(int(value)) > truth))


def randomized_response(rng: np.random.Generator, *, epsilon: float, guesses: int) -> Counts:
    """Right guesses in each of `RUNS` runs that answer each coin rightly with probability e^eps / (1 + e^eps)."""
    return rng.binomial(guesses, expit(epsilon), size=RUNS)


def gaussian_scores(
    rng: np.random.Generator, *, separation: float, canaries: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores and coins of `RUNS` runs: unit noise on the coin times `separation`, the inverse noise multiplier."""
    included = rng.random((RUNS, canaries)) < 0.5
    return included * separation + rng.standard_normal((RUNS, canaries)), included


def gaussian_delta(separation: float, epsilon: Floats | float) -> Floats:
    """The exact delta of the Gaussian mechanism (Balle and Wang, 2018, Theorem 8)."""
    far = np.asarray(epsilon) / separation
    delta = norm.cdf(separation / 2 - far) - np.exp(epsilon + log_ndtr(-separation / 2 - far))
    return np.asarray(np.clip(delta, 0.0, 1.0))


def gaussian_epsilon(separation: float, delta: float) -> float:
    """The exact epsilon of the Gaussian mechanism at this delta."""
    return float(brentq(lambda epsilon: float(gaussian_delta(separation, epsilon)) - delta, 0.0, 100.0))


def gaussian_curve(separation: float) -> TradeOffCurve:
    """The exact curve of the Gaussian mechanism at a grid of epsilons."""
    epsilons = np.concatenate([[0.0], np.geomspace(1e-4, 40, 1500)])
    return TradeOffCurve(epsilons=epsilons, deltas=gaussian_delta(separation, epsilons))


def gaussian_curve_at(epsilon: float, delta: float) -> TradeOffCurve:
    """The exact curve of the Gaussian mechanism that is (epsilon, delta)-DP and no better."""
    return gaussian_curve(
        float(brentq(lambda separation: float(gaussian_delta(separation, epsilon)) - delta, 1e-7, 60.0))
    )


def correct_at_edges(scores: Floats, included: npt.NDArray[np.bool_], per_side: int) -> Counts:
    """Right guesses of each run where the highest scores are guessed included and as many of the lowest excluded."""
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(included, order, axis=1)
    return np.asarray(ranked[:, -per_side:].sum(axis=1) + (~ranked[:, :per_side]).sum(axis=1))


def revealing_response(rng: np.random.Generator, *, epsilon: float, delta: float, guesses: int) -> Counts:
    """Right guesses where randomized response reveals all coins with probability `delta`: (epsilon, delta)-DP."""
    revealed = rng.random(RUNS) < delta
    return np.where(revealed, guesses, randomized_response(rng, epsilon=epsilon, guesses=guesses))
