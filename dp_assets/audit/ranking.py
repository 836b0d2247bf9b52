"""How well scores rank included canaries above excluded ones: AUC, and true-positive rates at low false-positive rates.

Intervals hold for finite numbers of canaries and any distributions of the scores, without bootstrap, if the scores of
included canaries are independent draws from one distribution and those of excluded canaries from another. In one run
that is an idealization, since all canaries share a model: these figures describe an attack and prove no epsilon.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import bisect
from scipy.special import rel_entr
from scipy.stats import binom, rankdata

from dp_assets.audit.binomial import binomial_lower, binomial_upper, check_significance
from dp_assets.audit.canary_scores import CanaryScores

LOW_FALSE_POSITIVE_RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Estimate:
    """A figure, and an interval that contains its true value but for an error of the stated significance."""

    value: float
    lower: float
    upper: float


def auc(scores: CanaryScores, *, significance: float) -> Estimate:
    """Return the probability that an included canary scores above an excluded one; ties count half.

    The interval inverts the Chernoff bound with n, the smaller of the two numbers of canaries: a true value t gives an
    AUC beyond a with probability at most exp(-n KL(a, t)). It holds because a two-sample U-statistic is an average of
    means of n independent pairs (Hoeffding, 1963, Theorem 1 and Section 5).

    Raises:
      ValueError: no canary is included, or none excluded, or `significance` is not inside (0, 1).
    """
    check_significance(significance)
    included, excluded = _group_sizes(scores)
    rank_sum = float(rankdata(scores.scores)[scores.included].sum())
    value = (rank_sum - included * (included + 1) / 2) / (included * excluded)
    allowed = math.log(2 / significance) / min(included, excluded)
    return Estimate(value, _divergence_lower(value, allowed), 1 - _divergence_lower(1 - value, allowed))


def true_positive_rate(scores: CanaryScores, *, false_positive_rate: float, significance: float) -> Estimate:
    """Return the share of included canaries above the threshold at this false-positive rate.

    - The value is the share above the lowest excluded score that at most this share of the excluded canaries exceed.
    - The interval is for the best threshold whose true false-positive rate is at most the given one. Order statistics
      of the excluded scores bound that threshold from both sides, and Clopper-Pearson bounds the share of included
      canaries above these two: four bounds, each at a quarter of the significance.
    - The lower end is 0 with fewer than about log(4 / significance) / `false_positive_rate` excluded canaries, because
      they cannot tell where so low a rate lies.

    Raises:
      ValueError: no canary is included, or none excluded, or a rate or `significance` is not inside (0, 1).
    """
    check_significance(significance)
    if not 0 < false_positive_rate < 1:
        raise ValueError("false_positive_rate must lie in (0, 1)")
    included, excluded = _group_sizes(scores)
    share = significance / 4
    descending = -np.sort(-scores.scores[~scores.included])
    positives = scores.scores[scores.included]
    allowed = math.floor(false_positive_rate * excluded)
    value = int((positives > descending[allowed]).sum()) / included

    surely_below = int(binom.ppf(share, excluded, false_positive_rate))
    lower = 0.0
    if surely_below > 0:
        lower = binomial_lower(int((positives > descending[surely_below - 1]).sum()), included, share)
    surely_above = int(binom.isf(share, excluded, false_positive_rate)) + 1
    upper = 1.0
    if surely_above <= excluded:
        upper = binomial_upper(int((positives >= descending[surely_above - 1]).sum()), included, share)
    return Estimate(value, lower, upper)


def _group_sizes(scores: CanaryScores) -> tuple[int, int]:
    included = int(scores.included.sum())
    if included in (0, scores.canaries):
        raise ValueError("at least one canary must be included and one excluded")
    return included, scores.canaries - included


def _divergence_lower(value: float, allowed: float) -> float:
    """Return the least t up to `value` whose relative entropy KL(value, t) is at most `allowed`."""

    def excess(candidate: float) -> float:
        return float(rel_entr(value, candidate) + rel_entr(1 - value, 1 - candidate)) - allowed

    return 0.0 if value == 0 else float(bisect(excess, 0.0, value))
