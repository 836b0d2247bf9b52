import numpy as np
import pytest

from dp_assets.selection.strategies import MOST_SHOWN, Attempt, Strategy, attempt, opening_words

EXAMPLES = [f"example {number} of a kind that has nine words" for number in range(8)]


def attempts(strategy: Strategy, examples: list[str], number: int = 40) -> list[Attempt]:
    generator = np.random.default_rng(0)
    return [attempt(strategy, 3, examples, generator=generator) for _ in range(number)]


def test_earlier_turns_show_three_different_examples_and_over_time_all_of_them() -> None:
    made = attempts(Strategy.EARLIER_TURNS, EXAMPLES)
    assert all(one.steering == (one.shown, "") and len(set(one.shown)) == MOST_SHOWN for one in made)
    assert {text for one in made for text in one.shown} == set(EXAMPLES)
    assert attempts(Strategy.EARLIER_TURNS, EXAMPLES[:1])[0].shown == (EXAMPLES[0],)


def test_an_opening_is_the_beginning_of_one_example_and_over_time_of_all() -> None:
    made = attempts(Strategy.OPENING, EXAMPLES)
    assert all(one.steering == ((), opening_words(one.shown[0])) and len(one.shown) == 1 for one in made)
    assert {one.shown[0] for one in made} == set(EXAMPLES)


def test_an_unsteered_attempt_shows_nothing() -> None:
    assert attempts(Strategy.UNSTEERED, [])[0] == Attempt(Strategy.UNSTEERED, 3, (), ((), ""))


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("a b c d e f g h i j k l m", "a b"),
        ("hello", "hello"),
        ("hi there", "hi"),
        ("\tone\n two three  four five", "one"),
    ],
)
def test_an_opening_is_a_seventh_of_the_words_and_one_at_least(text: str, opening: str) -> None:
    assert opening_words(text) == opening
