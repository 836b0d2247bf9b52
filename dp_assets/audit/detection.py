"""What an audit from one run can show at most, and what it needs to show anything.

Few guesses prove little: with r of them and delta 0, no outcome shows more than about log(r / log(1 / significance)).
An audit that shows nothing says something only beside these figures.
"""

import bisect
import math

from scipy.special import logit

from dp_assets.audit.binomial import binomial_lower, check_significance
from dp_assets.audit.one_run import GuessCounts, epsilon_lower_bound, p_value


def limit_of_detection(*, canaries: int, guesses: int, significance: float, delta: float) -> float:
    """Return the largest lower bound on epsilon that so many guesses can give: the one where all are right.

    - No mechanism is shown to exceed it, not even one without noise. Larger epsilons cannot be told apart.
    - It is a limit for the best attack. `detectable_epsilon` says how much must leak to refute a claim.
    - With several guess rules under a Bonferroni correction, pass `significance` divided by their number.

    Raises:
      ValueError: `guesses` is not between 0 and `canaries`, or as for `epsilon_lower_bound`.
    """
    all_right = GuessCounts(canaries=canaries, guesses=guesses, correct=guesses)
    return epsilon_lower_bound(all_right, significance=significance, delta=delta)


def detectable_epsilon(
    *, canaries: int, guesses: int, significance: float, delta: float, claimed_epsilon: float, power: float
) -> float:
    """Return the least epsilon at which an attack of the best accuracy refutes a claim with probability `power`.

    The best accuracy of a guess under epsilon-DP is e^epsilon / (1 + e^epsilon), that of randomized response. Real
    attacks are worse and need a larger epsilon. The result is infinite where not even right guesses alone refute the
    claim.

    Args:
      canaries: the number of coins.
      guesses: the number of coins guessed.
      significance: probability of refuting a claim that is true.
      delta: of the claim.
      claimed_epsilon: of the claim; finite, at least 0.
      power: probability of refuting the claim, in (0, 1).

    Raises:
      ValueError: a number is out of its range.
    """
    check_significance(significance)
    if not 0 < power < 1:
        raise ValueError("power must lie in (0, 1)")

    def refutes(correct: int) -> bool:
        counts = GuessCounts(canaries=canaries, guesses=guesses, correct=correct)
        return p_value(counts, epsilon=claimed_epsilon, delta=delta) <= significance

    fewest = bisect.bisect_left(range(guesses + 1), True, key=refutes)
    if fewest > guesses:
        return math.inf
    return max(0.0, float(logit(binomial_lower(fewest, guesses, power))))
