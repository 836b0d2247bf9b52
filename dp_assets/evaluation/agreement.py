"""How well a synthetic set agrees with the noisy votes of the real units.

Every figure here is post-processing of a histogram that was released and paid for, so it costs no privacy and may be
published. The exact histogram is never an input. What the figures cannot do is tell the votes from their noise:
`expected_noise_total_variation` says how large a distance the noise alone would cause.

Shapes: `bin_ids` (n,), everything else (num_bins,). Shares sum to one.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CLEARLY_OCCUPIED_STDDEVS = 3.0


def bin_shares(bin_ids: Integers, num_bins: int) -> Floats:
    """The share of rows in each bin.

    Raises:
      ValueError: there is no row, or a bin id lies outside 0..num_bins-1.
    """
    return _counts(bin_ids, num_bins) / len(bin_ids)


def noisy_shares(noisy_votes: Integers) -> Floats:
    """The noisy votes as shares: negative votes become 0, the rest is divided by its sum.

    When no vote is positive the noise has swallowed the histogram and every bin gets the same share.
    """
    votes = np.maximum(np.asarray(noisy_votes, dtype=np.float64), 0.0)
    total = float(votes.sum())
    return votes / total if total > 0 else np.full(len(votes), 1.0 / len(votes))


def total_variation(p: Floats, q: Floats) -> float:
    """The total variation distance sum |p - q| / 2: the share of rows that would have to move. Between 0 and 1."""
    return float(np.abs(p - q).sum() / 2)


def jensen_shannon(p: Floats, q: Floats) -> float:
    """The Jensen-Shannon divergence (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, in bits. Between 0 and 1."""
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return min(max(divergence, 0.0), 1.0)


def coverage(
    noisy_votes: Integers, counts: Integers, *, noise_stddev: float, num_stddevs: float = CLEARLY_OCCUPIED_STDDEVS
) -> float:
    """The share of clearly occupied bins that hold at least one synthetic row.

    A bin is clearly occupied when its noisy vote exceeds `num_stddevs` standard deviations of the noise; at three, one
    empty bin in 740 passes by chance. With no such bin there is nothing to miss and the share is 1.
    """
    occupied = _clearly_occupied(noisy_votes, noise_stddev=noise_stddev, num_stddevs=num_stddevs)
    return float((counts[occupied] > 0).mean()) if occupied.any() else 1.0


def expected_noise_total_variation(noisy_votes: Integers, noise_stddev: float) -> float:
    """The total variation that the noise of the votes would cause alone, at most 1.

    Noise of standard deviation s moves a bin by E|z| = s sqrt(2 / pi) on average, so over K bins and a total of V votes
    the distance is about sqrt(2 / pi) s K / (2 V). V is the sum of the noisy votes, negatives included.
    Where many bins are truly empty the figure is too high: there only the positive half of the noise counts.

    A synthetic set that matched the real rows perfectly would still show this distance, so a measured one of this size
    or below cannot be told from perfect agreement.
    """
    total = float(np.sum(noisy_votes))
    if total <= 0:
        return 1.0
    return min(1.0, math.sqrt(2 / math.pi) * noise_stddev * len(noisy_votes) / (2 * total))


def agreement_figures(bin_ids: Integers, noisy_votes: Integers, *, noise_stddev: float) -> dict[str, float]:
    """The distances between a synthetic set and the noisy votes, and its coverage of the clearly occupied bins.

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


def clearly_occupied_bins(noisy_votes: Integers, *, noise_stddev: float) -> int:
    """How many bins `coverage` counts over: those whose noisy vote exceeds three standard deviations of the noise."""
    return int(_clearly_occupied(noisy_votes, noise_stddev=noise_stddev, num_stddevs=CLEARLY_OCCUPIED_STDDEVS).sum())


def _clearly_occupied(noisy_votes: Integers, *, noise_stddev: float, num_stddevs: float) -> npt.NDArray[np.bool_]:
    return np.asarray(noisy_votes) > num_stddevs * noise_stddev


def _counts(bin_ids: Integers, num_bins: int) -> Integers:
    if len(bin_ids) == 0:
        raise ValueError("bin_ids is empty: a set without rows has no shares; sample or resample some rows first")
    if np.min(bin_ids) < 0 or np.max(bin_ids) >= num_bins:
        raise ValueError("bin_ids must lie in 0..num_bins-1; assign the rows to the bins that the votes were cast on")
    return np.bincount(bin_ids, minlength=num_bins).astype(np.int64)


def _relative_entropy(p: Floats, q: Floats) -> float:
    support = p > 0
    return float((p[support] * np.log2(p[support] / q[support])).sum())
