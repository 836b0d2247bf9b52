"""The lower bound on epsilon from one run (Steinke, Nasr and Jagielski, arXiv 2305.08846).

Each of m canaries is included by its own fair coin. The mechanism runs once. From its output alone, and without the
coins, an attacker guesses r of the coins and abstains from the others; v guesses are right. If the mechanism is
(epsilon, delta)-DP for one canary added or removed, then for q = e^epsilon / (1 + e^epsilon) and B ~ Binomial(r, q)

    Pr[at least v right]  <=  f(v) + 2 m delta max over 1 <= i <= v of (f(v - i) - f(v)) / i,    f(v) = Pr[B >= v].

That is Corollary 5.4 there. The bound is attained at delta 0 by randomized response on every canary. It holds however
the canaries influence each other, and for every attack, provided that

- the coins are fair, independent, and unknown to the mechanism's other inputs and to the attack;
- r is fixed beforehand, and so is how the attack chooses what to guess (`thresholds.py` pays for several choices).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from dp_assets.audit.binomial import binomial_lower, binomial_tails, check_significance

BISECTIONS = 60


@dataclass(frozen=True)
class GuessCounts:
    """The outcome of an attack: `canaries` coins, `guesses` of which were guessed, `correct` of them rightly."""

    canaries: int
    guesses: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.guesses <= self.canaries:
            raise ValueError("guesses must lie between 0 and canaries, and correct between 0 and guesses")


def p_value(counts: GuessCounts, *, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of at least so many correct guesses under (epsilon, delta)-DP; at most 1.

    Corollary 5.4 of arXiv 2305.08846.

    Raises:
      ValueError: `epsilon` is negative or not finite, or `delta` not inside [0, 1].
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError("epsilon must be finite and at least 0")
    _check_delta(delta)
    accuracy = float(expit(epsilon))
    fewer = np.arange(counts.correct + 1 if delta > 0 else 1)
    tails = binomial_tails(counts.correct - fewer, counts.guesses, accuracy)
    gains = (tails[1:] - tails[0]) / fewer[1:]
    return min(1.0, float(tails[0]) + 2 * counts.canaries * delta * float(gains.max(initial=0.0)))


def epsilon_lower_bound(counts: GuessCounts, *, significance: float, delta: float) -> float:
    """Return an epsilon that the mechanism exceeds at this delta, but for an error of probability `significance`.

    - It is 0 where the guesses refute nothing, and always finite.
    - Epsilons below it are refuted as well, because (epsilon, delta)-DP implies every larger epsilon (Lemma 4.7).
    - At delta 0 it is the log-odds of the Clopper-Pearson lower bound on the accuracy; otherwise the lower end of a
      bisection over epsilon.

    Raises:
      ValueError: `significance` is not inside (0, 1), or `delta` not inside [0, 1].
    """
    check_significance(significance)
    _check_delta(delta)
    largest = max(0.0, float(logit(binomial_lower(counts.correct, counts.guesses, significance))))
    if delta == 0:
        return largest
    if largest == 0 or p_value(counts, epsilon=0.0, delta=delta) > significance:
        return 0.0
    refuted, unrefuted = 0.0, largest
    for _ in range(BISECTIONS):
        middle = (refuted + unrefuted) / 2
        if p_value(counts, epsilon=middle, delta=delta) <= significance:
            refuted = middle
        else:
            unrefuted = middle
    return refuted


def _check_delta(delta: float) -> None:
    if not 0 <= delta <= 1:
        raise ValueError("delta must lie in [0, 1]")
