"""How a generator is asked for a text of a certain bin: by showing it released texts of that bin.

A strategy turns examples into a steering (see `generation/steering.py`): earlier turns, and an opening that the
generator goes on with. Opening words are whole words between white space; a text without white space between its words
opens as a whole, comes back as a near copy, and is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dp_assets.vocabulary import Steering

MOST_SHOWN = 3
"""Examples in one prompt. More make it longer, and a small model tends to repeat one of them."""
OPENING_SHARE = 0.15
"""Of an example's words. With a third of them, texts were more alike and only a little more often of the bin that was
aimed at (docs/results/closed_loop.md).
"""


class Strategy(StrEnum):
    """How texts are sampled for short bins.

    UNSTEERED draws as the pool was drawn and serves all bins alike. The others aim at one bin: EARLIER_TURNS shows
    examples as user turns before the open one, OPENING starts with the first words of one example.
    """

    UNSTEERED = "unsteered"
    EARLIER_TURNS = "earlier_turns"
    OPENING = "opening"


STEERED = (Strategy.EARLIER_TURNS, Strategy.OPENING)


@dataclass(frozen=True)
class Attempt:
    """One text to draw: how, aimed at which bin (`NO_BIN`: none), and the examples that its prompt shows in part."""

    strategy: Strategy
    bin_id: int
    shown: tuple[str, ...]
    steering: Steering


def attempt(strategy: Strategy, bin_id: int, examples: Sequence[str], *, generator: np.random.Generator) -> Attempt:
    """An attempt that shows examples chosen by `generator`; there must be one at least, unless it is unsteered."""
    number = {Strategy.UNSTEERED: 0, Strategy.EARLIER_TURNS: MOST_SHOWN, Strategy.OPENING: 1}[strategy]
    chosen = generator.permutation(len(examples))[:number]
    shown = tuple(examples[index] for index in chosen)
    steering = ((), opening_words(shown[0])) if strategy is Strategy.OPENING else (shown, "")
    return Attempt(strategy, bin_id, shown, steering)


def opening_words(text: str) -> str:
    """The first words of a text, at least one."""
    words = text.split()
    return " ".join(words[: max(1, round(OPENING_SHARE * len(words)))])
