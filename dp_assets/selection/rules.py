"""Resampling rules: from noisy votes to the quota of each bin and the weight of each row in its bin.

    smoothed   quotas by the estimate of `smoothing`, rows of a bin weighted by a smooth density ratio
    paper      quotas by the positive noisy votes as they are, rows of a bin uniformly (the paper's Algorithm 2)

Both are post-processing of the votes, and both give exactly the target size. The paper's own rounding, which does not,
is in `benchmarks/paper_rule.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import quotas, require_positive_votes, split_exactly
from dp_assets.selection.smoothing import Smoothed, smooth_votes
from dp_assets.vocabulary import Rule


@dataclass(frozen=True)
class RuleResult:
    """The quotas and weights that a rule asks for.

    - `quotas`: int64 (num_bins,); their sum is the target size.
    - `log_weights`: float64 (n,), one for each row of the pool.
    - `figures`: public; the rule, and the parameters that it estimated from the votes.
    """

    quotas: Integers
    log_weights: Floats
    figures: Mapping[str, str | float]


def apply_rule(
    rule: Rule,
    histogram: NoisyHistogram,
    *,
    bins: Integers,
    vectors: Iterable[Vectors],
    centroids: Vectors,
    target_size: int,
) -> RuleResult:
    """Apply a rule to the noisy votes and a pool.

    Args:
      rule: the rule.
      histogram: the noisy votes.
      bins: the bin of each row of the pool, int64 (n,).
      vectors: the rows of the pool, in blocks of float32 (n, d); read by the smoothed rule only.
      centroids: float32 (num_bins, d).
      target_size: the sum of the quotas.

    Raises:
      NoPositiveVotes: no noisy vote is positive.
    """
    figures: dict[str, str | float] = {"rule": rule}
    if rule == "paper":
        return RuleResult(quotas(histogram.votes, target_size=target_size), np.zeros(len(bins)), figures)
    require_positive_votes(histogram.votes)
    in_pool = np.bincount(bins, minlength=len(centroids)).astype(np.int64)
    smoothed = smooth_votes(
        histogram.votes, pool_counts=in_pool, centroids=centroids, noise_stddev=histogram.noise_stddev
    )
    row_quotas = split_exactly(smoothed.votes, total=target_size)
    log_weights, stretch = _log_weights(smoothed, vectors, bins)
    figures |= smoothed.figures() | {"smoothing_stretch_of_rows": round(stretch, 4)}
    return RuleResult(row_quotas, log_weights, figures)


def _log_weights(smoothed: Smoothed, vectors: Iterable[Vectors], bins: Integers) -> tuple[Floats, float]:
    """Return the log weights of the rows, and the stretch of their log ratios, which the first block determines."""
    log_ratios, stretch = [np.empty(0)], 1.0
    for block in vectors:
        if len(log_ratios) == 1:
            stretch = smoothed.stretch_of_rows(block, bins[: len(block)])
        log_ratios.append(smoothed.log_ratios(block))
    return stretch * np.concatenate(log_ratios), stretch
