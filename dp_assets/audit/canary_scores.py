"""Scores of canaries, and the guesses that an attacker makes from them while abstaining from the uncertain ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dp_assets.arrays import Floats
from dp_assets.audit.one_run import GuessCounts

Coins = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GuessRule:
    """Guess that the `highest` scores belong to included canaries and the `lowest` to excluded ones; else abstain."""

    highest: int
    lowest: int

    def __post_init__(self) -> None:
        if self.highest < 0 or self.lowest < 0:
            raise ValueError("highest and lowest must be at least 0")

    @property
    def guesses(self) -> int:
        """The number of canaries that are guessed."""
        return self.highest + self.lowest


@dataclass(frozen=True, eq=False)
class CanaryScores:
    """A score for each canary, larger where it looks included, and its coin: whether it was; both of shape (m,).

    A score may depend on the mechanism's output and on the canary, never on the coins.
    """

    scores: Floats
    included: Coins

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.scores.shape != self.included.shape or self.included.dtype != np.bool_:
            raise ValueError("scores and included must be vectors of one length, included of booleans")
        if np.isnan(self.scores).any():
            raise ValueError("scores must not be NaN")

    @property
    def canaries(self) -> int:
        """The number of canaries, m."""
        return int(self.scores.size)

    def where(self, chosen: Coins) -> "CanaryScores":
        """Return the canaries that a mask of shape (m,) chooses."""
        return CanaryScores(scores=self.scores[chosen], included=self.included[chosen])

    def guess(self, rule: GuessRule) -> GuessCounts:
        """Return how many guesses of `rule` are right.

        Among equal scores at the edge of a group of guesses, wrong guesses count first. So the result does not depend
        on the order of the canaries, and no rule that breaks ties without the coins has fewer right guesses.

        Raises:
          ValueError: the rule guesses more than there are canaries.
        """
        if rule.guesses > self.canaries:
            raise ValueError("a rule must not guess more than there are canaries")
        correct = _fewest_right(self.scores, self.included, rule.highest)
        correct += _fewest_right(-self.scores, ~self.included, rule.lowest)
        return GuessCounts(canaries=self.canaries, guesses=rule.guesses, correct=correct)


def _fewest_right(scores: Floats, right: Coins, guesses: int) -> int:
    """Return the least number of right guesses among the `guesses` highest scores, over all ways to break ties."""
    if guesses == 0:
        return 0
    edge = np.partition(scores, scores.size - guesses)[scores.size - guesses]
    above, tied = scores > edge, scores == edge
    wrong_ties = int((tied & ~right).sum())
    return int((above & right).sum()) + max(0, guesses - int(above.sum()) - wrong_ties)
