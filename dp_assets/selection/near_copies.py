"""Detection of copies: new texts with the same words as an earlier text, or near copies of one.

A generator that has an example in its prompt may repeat it. Such a row would meet a quota in number only. Texts are
compared by their words, without case and punctuation. A near copy shares at least half of the word trigrams of the
shorter text. A text with the opening of another one stays below half unless its continuation is similar too. Texts in
scripts without spaces between words are compared as wholes.
"""

import hashlib
import re
from collections.abc import Iterable

RUN = 3
NEAR = 0.5

Runs = frozenset[tuple[str, ...]]


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case; the text itself if it has no word."""
    return tuple(re.findall(r"\w+", text.casefold())) or (text.strip(),)


def hash_of_words(text: str) -> bytes:
    """Return a 16-byte hash of the words of a text: equal for texts of the same words, practically never for others."""
    return hashlib.blake2b(" ".join(words_of(text)).encode(), digest_size=16).digest()


def runs_of(text: str) -> Runs:
    """Return the word trigrams of a text; all its words as one if it has fewer than three."""
    words = words_of(text)
    return frozenset(words[start : start + RUN] for start in range(max(1, len(words) - RUN + 1)))


def is_near_copy(runs: Runs, others: Iterable[Runs]) -> bool:
    """Whether a text and any of the others share at least half of the trigrams of the shorter of the two."""
    return any(len(runs & other) >= NEAR * min(len(runs), len(other)) for other in others)
