"""Which new texts are copies: the same words as an earlier text, or half of them in the same order.

A generator that was shown a text may write it down again. Such rows would meet a quota in number only. Texts are
compared by their words, without case and punctuation; a near copy shares at least half of the runs of three words of
the shorter of the two texts. A text that starts with another's first words stays below that unless it goes on
like it. Texts in writing without spaces between words are compared as wholes.
"""

import hashlib
import re
from collections.abc import Iterable

RUN = 3
NEAR = 0.5

Runs = frozenset[tuple[str, ...]]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; the text itself where it has no word."""
    return tuple(re.findall(r"\w+", text.casefold())) or (text.strip(),)


def fingerprint(text: str) -> bytes:
    """16 bytes that texts of the same words share, and others practically never; far smaller than the words."""
    return hashlib.blake2b(" ".join(words_of(text)).encode(), digest_size=16).digest()


def runs_of(text: str) -> Runs:
    """The runs of three words of a text; all its words where it has fewer."""
    words = words_of(text)
    return frozenset(words[start : start + RUN] for start in range(max(1, len(words) - RUN + 1)))


def is_near_copy(runs: Runs, others: Iterable[Runs]) -> bool:
    """Whether a text shares at least half of the runs of the shorter text with any of the others."""
    return any(len(runs & other) >= NEAR * min(len(runs), len(other)) for other in others)
