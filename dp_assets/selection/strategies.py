"""Strategies for sampling texts of a given bin: released texts of that bin are put into the generator's prompt.

A strategy turns examples into a steering (see `generation/steering.py`): earlier turns, and an opening that the
generator continues. An opening consists of whole words, separated by white space. A text in a script without white
space becomes an opening as a whole; the sample is then a near copy and is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dp_assets.vocabulary import Steering

MOST_SHOWN = 3
"""The most examples in one prompt. More make it longer, and a small model tends to repeat one of them."""
OPENING_SHARE = 0.15
"""The share of an example's words that the answer begins with. With a third of them, texts were more alike and only
a little more often of the bin that was aimed at (docs/results/closed_loop.md)."""


class Strategy(StrEnum):
    """How texts are sampled for short bins.

    - UNSTEERED samples as the pool was sampled, for all bins alike.
    - EARLIER_TURNS aims at one bin: examples are user turns before the open one.
    - OPENING aims at one bin: the text starts with the first words of one example.
    """

    UNSTEERED = "unsteered"
    EARLIER_TURNS = "earlier_turns"
    OPENING = "opening"


STEERED = (Strategy.EARLIER_TURNS, Strategy.OPENING)


@dataclass(frozen=True)
class Attempt:
    """One text to sample: the strategy, the target bin (`NO_BIN`: none), the examples, and the resulting steering.

    The prompt has the examples in `shown` wholly or in part.
    """

    strategy: Strategy
    bin_id: int
    shown: tuple[str, ...]
    steering: Steering


def attempt(strategy: Strategy, bin_id: int, examples: Sequence[str], *, generator: np.random.Generator) -> Attempt:
    """Return an attempt with examples chosen by `generator`. A steered attempt needs at least one example."""
    number = {Strategy.UNSTEERED: 0, Strategy.EARLIER_TURNS: MOST_SHOWN, Strategy.OPENING: 1}[strategy]
    chosen = generator.permutation(len(examples))[:number]
    shown = tuple(examples[index] for index in chosen)
    steering = ((), opening_words(shown[0])) if strategy is Strategy.OPENING else (shown, "")
    return Attempt(strategy, bin_id, shown, steering)


def opening_words(text: str) -> str:
    """Return the first words of a text, at least one."""
    words = text.split()
    return " ".join(words[: max(1, round(OPENING_SHARE * len(words)))])
