"""Guesses from scores: by hand, with ties, and without any help from the coins."""

import itertools

import numpy as np
import pytest

from dp_assets.audit.canary_scores import CanaryScores, GuessRule
from dp_assets.audit.one_run import GuessCounts


def canaries(scores: list[float], included: list[int]) -> CanaryScores:
    return CanaryScores(scores=np.array(scores, dtype=float), included=np.array(included, dtype=bool))


def test_the_highest_are_guessed_included_and_the_lowest_excluded() -> None:
    scores = canaries([5, 4, 3, 2, 1, 0], [1, 0, 1, 0, 1, 0])
    assert scores.guess(GuessRule(1, 1)) == GuessCounts(6, 2, 2)
    assert scores.guess(GuessRule(2, 1)) == GuessCounts(6, 3, 2)
    assert scores.guess(GuessRule(3, 3)) == GuessCounts(6, 6, 4)
    assert scores.guess(GuessRule(0, 2)) == GuessCounts(6, 2, 1)
    assert scores.guess(GuessRule(0, 0)) == GuessCounts(6, 0, 0)


def test_infinite_scores_are_the_highest_and_the_lowest() -> None:
    assert canaries([0, np.inf, -np.inf, 1], [0, 1, 0, 0]).guess(GuessRule(1, 1)) == GuessCounts(4, 2, 2)


def test_equal_scores_tell_nothing_whatever_the_order_of_the_canaries() -> None:
    included_first = canaries([0.0] * 100, [1] * 50 + [0] * 50)
    excluded_first = canaries([0.0] * 100, [0] * 50 + [1] * 50)
    for rule in (GuessRule(50, 50), GuessRule(20, 0), GuessRule(0, 20), GuessRule(30, 30)):
        assert included_first.guess(rule) == excluded_first.guess(rule)
        assert included_first.guess(rule).correct == 0


@pytest.mark.parametrize(("highest", "lowest"), [(0, 3), (1, 1), (2, 3), (3, 2), (4, 1), (5, 0)])
def test_no_way_to_break_ties_has_fewer_right_guesses(highest: int, lowest: int) -> None:
    scores = canaries([2, 1, 1, 1, 0], [1, 1, 0, 1, 0])
    right = []
    for order in itertools.permutations(range(5)):
        ranked = sorted(order, key=lambda canary: -scores.scores[canary])
        top, bottom = ranked[:highest], ranked[5 - lowest :]
        right.append(int(scores.included[top].sum()) + int((~scores.included[bottom]).sum()))
    assert scores.guess(GuessRule(highest, lowest)).correct == min(right)


def test_a_mask_chooses_canaries_with_their_coins() -> None:
    chosen = canaries([3, 2, 1, 0], [1, 0, 0, 1]).where(np.array([True, False, True, False]))
    assert chosen.canaries == 2
    assert chosen.guess(GuessRule(1, 1)) == GuessCounts(2, 2, 2)


def test_more_guesses_than_canaries_are_refused() -> None:
    with pytest.raises(ValueError, match="must not guess more"):
        canaries([1, 0], [1, 0]).guess(GuessRule(2, 1))
    with pytest.raises(ValueError, match="at least 0"):
        GuessRule(-1, 0)


@pytest.mark.parametrize(
    ("scores", "included"),
    [
        (np.array([1.0, np.nan]), np.array([True, False])),
        (np.array([1.0]), np.array([True, False])),
        (np.array([[1.0]]), np.array([[True]])),
        (np.array([1.0, 2.0]), np.array([1, 0])),
    ],
    ids=["nan", "lengths", "matrix", "integers"],
)
def test_scores_without_a_meaning_are_refused(scores: np.ndarray, included: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be vectors|must not be NaN"):
        CanaryScores(scores=scores, included=included)
