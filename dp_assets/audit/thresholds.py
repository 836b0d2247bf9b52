"""Several guess rules for one run, paid for: by a Bonferroni correction, or by a split of the canaries.

The bounds of one run hold for a rule that was fixed before any coin was seen. The best of several rules is valid only
if each is tested at its share of the significance, or if the rule is chosen on canaries that the test leaves out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dp_assets.audit.canary_scores import CanaryScores, Coins, GuessRule
from dp_assets.audit.one_run import GuessCounts

Bound = Callable[[GuessCounts, float], float]
"""From the outcome of an attack and a significance to a lower bound, such as `epsilon_lower_bound` at some delta."""


@dataclass(frozen=True)
class RuleResult:
    """A lower bound, the rule that it comes from, and that rule's guesses."""

    lower_bound: float
    rule: GuessRule
    counts: GuessCounts


def bonferroni(scores: CanaryScores, rules: Sequence[GuessRule], bound: Bound, *, significance: float) -> RuleResult:
    """Return the largest lower bound among the rules, each at `significance` divided by the number of rules.

    The rules must be fixed beforehand. The first of equally good ones is named.

    Raises:
      ValueError: there is no rule, or a rule guesses more than there are canaries.
    """
    return _best(scores, rules, bound, significance / max(1, len(rules)))


def bonferroni_p_value(
    scores: CanaryScores, rules: Sequence[GuessRule], p_value: Callable[[GuessCounts], float]
) -> float:
    """Return the smallest p-value among the rules times the number of rules, at most 1.

    Raises:
      ValueError: there is no rule, or a rule guesses more than there are canaries.
    """
    _require_rules(rules)
    return min(1.0, len(rules) * min(p_value(scores.guess(rule)) for rule in rules))


def split(
    scores: CanaryScores, rules: Sequence[GuessRule], bound: Bound, *, significance: float, chooses: Coins
) -> RuleResult:
    """Return the bound, at the whole significance, of the rule that is best on other canaries.

    The bound counts only the canaries that it is computed from, so m halves with an even split.

    Args:
      scores: all canaries.
      rules: candidates; each must fit either part.
      bound: the lower bound.
      significance: probability of an error.
      chooses: shape (m,); true for the canaries that choose the rule. It must not depend on the coins.

    Raises:
      ValueError: there is no rule, or a rule guesses more than there are canaries in a part.
    """
    rule = _best(scores.where(chooses), rules, bound, significance).rule
    return _best(scores.where(~chooses), [rule], bound, significance)


def _best(scores: CanaryScores, rules: Sequence[GuessRule], bound: Bound, significance: float) -> RuleResult:
    _require_rules(rules)
    outcomes = [(rule, scores.guess(rule)) for rule in rules]
    results = [RuleResult(bound(counts, significance), rule, counts) for rule, counts in outcomes]
    return max(results, key=lambda result: result.lower_bound)


def _require_rules(rules: Sequence[GuessRule]) -> None:
    if not rules:
        raise ValueError("there must be at least one rule")
