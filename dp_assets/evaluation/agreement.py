"""Agreement between a synthetic set and the real units, as measured by their noisy votes.

Every figure is post-processing of a released histogram that was paid for, so it costs no privacy and may be published.
The exact histogram is never an input. `agreement_figures` compares with the noisy votes themselves, noise included.
`estimated_figures` estimates the distance to the exact votes, with an interval (`vote_posterior.py`).

Shapes: `bin_ids` (n,), everything else (num_bins,). Shares sum to one.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dp_assets.arrays import Floats, Integers
from dp_assets.evaluation.vote_posterior import VotePosterior

CLEARLY_OCCUPIED_STDDEVS = 3.0
INTERVAL = (0.025, 0.975)
FRONTIER_SCALE, FRONTIER_POINTS, FRONTIER_EDGE = 5.0, 25, 1e-6
"""As in the published code of MAUVE: the factor in the exponent, and the number and ends of the mixture weights."""


def bin_shares(bin_ids: Integers, num_bins: int) -> Floats:
    """Return the share of rows in each bin.

    Raises:
      ValueError: there is no row, or a bin id is outside 0..num_bins-1.
    """
    return _counts(bin_ids, num_bins) / len(bin_ids)


def noisy_shares(noisy_votes: Integers) -> Floats:
    """Return the noisy votes as shares: negative votes become 0, and the rest is divided by its sum.

    If no vote is positive, nothing but noise is left and every bin gets the same share.
    """
    votes = np.maximum(np.asarray(noisy_votes, dtype=np.float64), 0.0)
    total = float(votes.sum())
    return votes / total if total > 0 else np.full(len(votes), 1.0 / len(votes))


def total_variation(p: Floats, q: Floats) -> float:
    """Return the total variation distance sum |p - q| / 2, the share of rows that would have to move, from 0 to 1."""
    return float(total_variations(p, q))


def total_variations(p: Floats, q: Floats) -> Floats:
    """Return the `total_variation` of many shares (..., num_bins) at once, (...,)."""
    distances: Floats = np.abs(p - q).sum(axis=-1) / 2
    return distances


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Return the Jensen-Shannon divergence (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, in bits, from 0 to 1."""
    return float(jensen_shannons(p, q))


def jensen_shannons(p: Floats, q: Floats) -> Floats:
    """Return the `jensen_shannon` of many shares (..., num_bins) at once, (...,)."""
    middle = (p + q) / 2
    divergences: Floats = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / (2 * math.log(2))
    return divergences.clip(0.0, 1.0)


def frontier_scores(p: Floats, q: Floats) -> Floats:
    """Return MAUVE's score over given bins, (...,): 1 for equal shares (..., num_bins), near 0 for distant ones.

    It is the area under the divergence frontier (Pillutla et al., NeurIPS 2021): the points (exp(-c KL(q, r)),
    exp(-c KL(p, r))) over the mixtures r of p and q, with c = 5. MAUVE itself fits bins to both sets of vectors, which
    would read real rows. Here the bins are those of the votes.
    """
    weights = np.linspace(FRONTIER_EDGE, 1 - FRONTIER_EDGE, FRONTIER_POINTS)
    mixtures = [weight * p + (1 - weight) * q for weight in weights]
    ends = np.zeros(np.broadcast_shapes(p.shape, q.shape)[:-1])
    x = np.stack([ends + 1, *(np.exp(-FRONTIER_SCALE * _relative_entropy(q, mixture)) for mixture in mixtures), ends])
    y = np.stack([ends, *(np.exp(-FRONTIER_SCALE * _relative_entropy(p, mixture)) for mixture in mixtures), ends + 1])
    areas: Floats = -np.trapezoid(y, x, axis=0)
    return areas


def coverage(
    noisy_votes: Integers, counts: Integers, *, noise_stddev: float, num_stddevs: float = CLEARLY_OCCUPIED_STDDEVS
) -> float:
    """Return the share of clearly occupied bins that hold at least one synthetic row; 1 if there is no such bin.

    A bin is clearly occupied if its noisy vote exceeds `num_stddevs` standard deviations of the noise. At three, one
    empty bin in 740 passes by chance.
    """
    occupied = _clearly_occupied(noisy_votes, noise_stddev=noise_stddev, num_stddevs=num_stddevs)
    return float((counts[occupied] > 0).mean()) if occupied.any() else 1.0


def expected_noise_total_variation(noisy_votes: Integers, noise_stddev: float) -> float:
    """Return the total variation that the noise of the votes alone would cause, at most 1.

    Noise of standard deviation s moves a bin by E|z| = s sqrt(2 / pi) on average, so over K bins and a total of V votes
    the distance is about sqrt(2 / pi) s K / (2 V). V is the sum of the noisy votes, negatives included. The figure is
    too high where many bins are truly empty, because only the positive half of their noise counts.

    A synthetic set that matched the real rows perfectly would still show this distance. So a measured distance of this
    size or less cannot be distinguished from perfect agreement.
    """
    total = float(np.sum(noisy_votes))
    if total <= 0:
        return 1.0
    return min(1.0, math.sqrt(2 / math.pi) * noise_stddev * len(noisy_votes) / (2 * total))


def agreement_figures(bin_ids: Integers, noisy_votes: Integers, *, noise_stddev: float) -> dict[str, float]:
    """Return the distances between a synthetic set and the noisy votes, and its coverage of clearly occupied bins.

    Args:
      bin_ids: the bin of each synthetic row, shape (n,).
      noisy_votes: the released votes, shape (num_bins,).
      noise_stddev: standard deviation of the noise on one vote count, in votes.

    Raises:
      ValueError: there is no synthetic row, or a bin id lies outside 0..num_bins-1.
    """
    num_bins = len(noisy_votes)
    synthetic, real = bin_shares(bin_ids, num_bins), noisy_shares(noisy_votes)
    return {
        "total_variation": total_variation(synthetic, real),
        "jensen_shannon": jensen_shannon(synthetic, real),
        "coverage": coverage(noisy_votes, _counts(bin_ids, num_bins), noise_stddev=noise_stddev),
    }


class Estimate(NamedTuple):
    """The posterior mean of a figure, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: Floats) -> "Estimate":
        """Summarize a figure's values over the draws of the posterior."""
        low, high = np.quantile(values, INTERVAL).tolist()
        return Estimate(float(values.mean()), low, high)


def estimated_figures(counts: Integers, posterior: VotePosterior) -> dict[str, Estimate]:
    """Estimate the distances between a synthetic set and the exact votes, with the uncertainty from the noise.

    The figures are `total_variation`, `jensen_shannon` and `frontier_score` (see `frontier_scores`) over the bins, and
    `covered_share`: the share of the real units whose bin holds a synthetic row.

    Args:
      counts: synthetic rows in each bin, (num_bins,), with at least one row.
      posterior: over the same bins.
    """
    synthetic, real = counts / counts.sum(), posterior.shares
    return {
        "total_variation": Estimate.of(total_variations(real, synthetic)),
        "jensen_shannon": Estimate.of(jensen_shannons(real, synthetic)),
        "frontier_score": Estimate.of(frontier_scores(real, synthetic)),
        "covered_share": Estimate.of(real[:, counts > 0].sum(axis=1)),
    }


def clearly_occupied_bins(noisy_votes: Integers, *, noise_stddev: float) -> int:
    """Return the number of clearly occupied bins: those whose noisy vote exceeds three noise standard deviations."""
    return int(_clearly_occupied(noisy_votes, noise_stddev=noise_stddev, num_stddevs=CLEARLY_OCCUPIED_STDDEVS).sum())


def _clearly_occupied(noisy_votes: Integers, *, noise_stddev: float, num_stddevs: float) -> npt.NDArray[np.bool_]:
    return np.asarray(noisy_votes) > num_stddevs * noise_stddev


def _counts(bin_ids: Integers, num_bins: int) -> Integers:
    if len(bin_ids) == 0:
        raise ValueError("bin_ids is empty: a set without rows has no shares; sample or resample some rows first")
    if np.min(bin_ids) < 0 or np.max(bin_ids) >= num_bins:
        raise ValueError("bin_ids must lie in 0..num_bins-1; assign the rows to the bins that the votes were cast on")
    return np.bincount(bin_ids, minlength=num_bins).astype(np.int64)


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """Return KL(p, q) in nats over the last axis. q must be positive wherever p is."""
    p, q = np.broadcast_arrays(p, q)
    ratios = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    entropies: Floats = (p * np.log(ratios)).sum(axis=-1)
    return entropies
