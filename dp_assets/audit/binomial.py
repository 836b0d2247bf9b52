"""Binomial tails, and one-sided confidence bounds on a probability from a count (Clopper and Pearson, 1934).

Both are regularized incomplete beta functions: Pr[Binomial(n, q) >= k] = I_q(k, n - k + 1).
"""

import numpy as np
from scipy.special import betainc, betainccinv, betaincinv

from dp_assets.arrays import Floats, Integers


def binomial_tails(least: Integers, trials: int, chance: float) -> Floats:
    """Return the probabilities of at least `least` successes in `trials`, each count at most `trials`; same shape."""
    positive = np.maximum(least, 1)
    return np.where(least <= 0, 1.0, betainc(positive, trials + 1 - positive, chance))


def binomial_lower(successes: int, trials: int, significance: float) -> float:
    """Return a bound that exceeds the probability of a success with probability at most `significance`.

    It is 0 without a success.

    Raises:
      ValueError: `successes` is not between 0 and `trials`, or `significance` not inside (0, 1).
    """
    _check(successes, trials, significance)
    return 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, significance))


def binomial_upper(successes: int, trials: int, significance: float) -> float:
    """Return a bound below the probability of a success with probability at most `significance`.

    It is 1 where every trial is a success, and without trials.

    Raises:
      ValueError: `successes` is not between 0 and `trials`, or `significance` not inside (0, 1).
    """
    _check(successes, trials, significance)
    return 1.0 if successes == trials else float(betainccinv(successes + 1, trials - successes, significance))


def check_significance(significance: float) -> None:
    """Refuse a significance that is no probability of an error.

    Raises:
      ValueError: `significance` is not inside (0, 1).
    """
    if not 0 < significance < 1:
        raise ValueError("significance must lie in (0, 1)")


def _check(successes: int, trials: int, significance: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError("successes must lie between 0 and trials")
    check_significance(significance)
