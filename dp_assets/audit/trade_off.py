"""The test of one run against a whole trade-off curve (Mahloujifar, Melis and Chaudhuri, arXiv 2410.22235).

The paper tests the curve of a Gaussian mechanism. Here it is that of any event, from its privacy loss distribution: a
list of pairs (epsilon, delta) that the mechanism satisfies all at once. Each pair gives two lines above the
true-positive rate of every attack (Kairouz, Oh and Viswanath, 2015), so it gives a least false-positive rate:

    FPR  >=  phi(TPR)  =  max over the pairs of  e^-epsilon (TPR - delta)  and  1 - delta - e^epsilon (1 - TPR),  0.

The setting is that of `one_run.py`: m coins, r guesses, v of them right. Let S_j be the probability of at least j right
guesses. Choose one of the m canaries at random; let R_j be the probability that its guess is right and that at least j
guesses are, and H_j that its guess is wrong and that at least j are right. To flip the coin of that canary turns a
right guess into a wrong one and leaves the others, so H_{j-1} >= phi(R_j), because phi is convex. Besides,

    m R_j = j S_j + S_{j+1} + ... + S_r        and        m (R_j + H_j) = r S_j.

Suppose S_v = p. Downwards from j = v, with S_j = 0 for j > v, these give the least S_j that the curve allows; by
induction no other distribution of the number of right guesses has a smaller one. If the least S_0 exceeds 1, the curve
forbids S_v = p. This is Algorithm 3 of the paper, for guesses between two values with abstention.

The bound may not be attained by any mechanism. For randomized response it is slightly looser than `one_run.p_value`,
for Gaussian noise tighter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent

from dp_assets.arrays import Floats
from dp_assets.audit.binomial import check_significance
from dp_assets.audit.one_run import GuessCounts
from dp_assets.privacy import accounting

SMALLEST_P_VALUE = 1e-12
LARGEST_EPSILON = 700.0
"""Its exponential is finite in float64."""
BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class TradeOffCurve:
    """What an attacker can reach: the mechanism is (`epsilons[i]`, `deltas[i]`)-DP for every i; both of shape (n,).

    The pairs hold for one canary added or removed. Pairs left out make the curve weaker, never wrong. A delta of 1 says
    nothing, so a mechanism without noise is never refuted.
    """

    epsilons: Floats
    deltas: Floats

    def __post_init__(self) -> None:
        if self.epsilons.ndim != 1 or self.epsilons.shape != self.deltas.shape or not self.epsilons.size:
            raise ValueError("epsilons and deltas must be vectors of one length, at least 1")
        if not ((self.epsilons >= 0) & (self.epsilons <= LARGEST_EPSILON)).all():
            raise ValueError(f"epsilons must lie in [0, {LARGEST_EPSILON:g}]")
        if not ((self.deltas >= 0) & (self.deltas <= 1)).all():
            raise ValueError("deltas must lie in [0, 1]")

    def least_false_positive_rate(self, true_positive_rate: float) -> float:
        """Return the least false-positive rate of an attack with this true-positive rate."""
        by_detection = np.exp(-self.epsilons) * (true_positive_rate - self.deltas)
        by_rejection = 1 - self.deltas - np.exp(self.epsilons) * (1 - true_positive_rate)
        return max(0.0, float(by_detection.max()), float(by_rejection.max()))


def curve_of(event: DpEvent) -> TradeOffCurve:
    """Return the certified trade-off curve of `event` for one unit added or removed.

    Raises:
      UnknownEvent: an event whose privacy loss distribution is not known.
    """
    epsilons, deltas = accounting.delta_curve(event)
    return TradeOffCurve(epsilons=epsilons, deltas=deltas)


def refutes(counts: GuessCounts, curve: TradeOffCurve, *, significance: float) -> bool:
    """Return whether so many correct guesses have probability less than `significance` under the curve.

    Raises:
      ValueError: `significance` is not inside (0, 1).
    """
    check_significance(significance)
    return _least_total(counts, curve, significance) > 1


def curve_p_value(counts: GuessCounts, curve: TradeOffCurve) -> float:
    """Return a bound on the probability of at least so many correct guesses under the curve.

    It is the upper end of a bisection over the logarithm, and at least `SMALLEST_P_VALUE`.
    """
    allowed, forbidden = math.log(SMALLEST_P_VALUE), 0.0
    if _least_total(counts, curve, 1.0) <= 1:
        return 1.0
    for _ in range(BISECTIONS):
        middle = (allowed + forbidden) / 2
        if _least_total(counts, curve, math.exp(middle)) > 1:
            forbidden = middle
        else:
            allowed = middle
    return math.exp(forbidden)


def family_lower_bound(
    counts: GuessCounts,
    curve_at: Callable[[float], TradeOffCurve],
    *,
    significance: float,
    largest: float,
    tolerance: float,
) -> float:
    """Return the largest parameter, up to `tolerance`, of a family of curves that the guesses refute; 0 if none.

    If the mechanism's curve is one of the family, its parameter exceeds the result, but for an error of probability
    `significance`.

    Args:
      counts: the outcome of the attack.
      curve_at: the family. A larger parameter allows more: for example the epsilon, at a fixed delta, of the plan with
        less noise. It is not asked for the curve at 0.
      significance: probability of an error.
      largest: the largest parameter to ask for.
      tolerance: by how much the result may lie below the largest refuted parameter.

    Raises:
      ValueError: `significance` is not inside (0, 1), or `largest` or `tolerance` not positive.
    """
    if largest <= 0 or tolerance <= 0:
        raise ValueError("largest and tolerance must be positive")
    refuted, unrefuted = 0.0, largest
    if refutes(counts, curve_at(largest), significance=significance):
        return largest
    while unrefuted - refuted > tolerance:
        middle = (refuted + unrefuted) / 2
        if refutes(counts, curve_at(middle), significance=significance):
            refuted = middle
        else:
            unrefuted = middle
    return refuted


def _least_total(counts: GuessCounts, curve: TradeOffCurve, tail: float) -> float:
    """Return the least total probability, or a value above 1, where `tail` is that of at least `counts.correct`."""
    guesses, correct = counts.guesses, counts.correct
    if guesses == 0:
        return tail
    right = tail * correct / counts.canaries
    wrong = tail * (guesses - correct) / counts.canaries
    total = tail
    for fewer in range(correct - 1, -1, -1):
        needed = curve.least_false_positive_rate(right)
        if needed <= wrong or total > 1:
            break
        right += fewer / (guesses - fewer) * (needed - wrong)
        wrong = needed
        total = (right + wrong) * counts.canaries / guesses
    return total
