"""The lower bound on epsilon from many runs, by Clopper-Pearson bounds (Jagielski, Ullman and Oprea, arXiv 2006.07709).

A fixed number of runs includes a canary, the others do not. In each, an attacker says whether the canary was included.
Runs must be independent, and the attack, its threshold included, fixed beforehand. If the mechanism is
(epsilon, delta)-DP for one canary added or removed, the attack satisfies

    TPR <= e^epsilon FPR + delta        and        TNR <= e^epsilon FNR + delta

(Kairouz, Oh and Viswanath, 2015).
"""

import math
from dataclasses import dataclass

from dp_assets.audit.binomial import binomial_lower, binomial_upper, check_significance


@dataclass(frozen=True)
class RunCounts:
    """`included` runs with the canary, `true_positives` of which the attack recognized, and likewise without it."""

    included: int
    true_positives: int
    excluded: int
    false_positives: int

    def __post_init__(self) -> None:
        if not 0 <= self.true_positives <= self.included or not 0 <= self.false_positives <= self.excluded:
            raise ValueError("true_positives must lie between 0 and included, false_positives between 0 and excluded")


def many_runs_lower_bound(counts: RunCounts, *, significance: float, delta: float) -> float:
    """Return an epsilon that the mechanism exceeds at this delta, but for an error of probability `significance`.

    - Half of the significance goes to the true-positive rate, half to the false-positive rate. Both inequalities are
      read from the same two bounds, so taking the larger result costs nothing.
    - It is 0 where the runs refute nothing, and always finite.

    Raises:
      ValueError: `significance` is not inside (0, 1), or `delta` not inside [0, 1].
    """
    check_significance(significance)
    if not 0 <= delta <= 1:
        raise ValueError("delta must lie in [0, 1]")
    detection = binomial_lower(counts.true_positives, counts.included, significance / 2)
    false_alarm = binomial_upper(counts.false_positives, counts.excluded, significance / 2)
    return max(_log_ratio(detection - delta, false_alarm), _log_ratio(1 - false_alarm - delta, 1 - detection))


def _log_ratio(numerator: float, denominator: float) -> float:
    return max(0.0, math.log(numerator / denominator)) if numerator > 0 else 0.0
