"""Privacy unit, neighboring relation and keyed hashes.

The unit is whose presence is hidden. Two corpora are neighbours when one holds all rows of one more unit than the other
(add-or-remove-one), so the number of units is itself private. A row that names no user is a unit of its own.
"""

import hashlib
from collections.abc import Iterable
from enum import StrEnum

from dp_accounting import NeighboringRelation

RELATION = NeighboringRelation.ADD_OR_REMOVE_ONE


class PrivacyUnit(StrEnum):
    """Whose contribution the guarantee bounds."""

    USER = "user"
    INSTRUCTION = "instruction"

    @property
    def in_words(self) -> str:
        """The unit as a statement must name it: a corpus may hold rows without a user."""
        return "user where named, else instruction" if self is PrivacyUnit.USER else "instruction"

    @property
    def preparation(self) -> str:
        """What a preparation is called that was seen to treat each of these units apart from all others."""
        return f"{self}-wise"


def keyed_hash(key: bytes, *parts: str) -> str:
    """128 bits of keyed BLAKE2b over length-prefixed parts, as hex; without the key it says nothing about the parts."""
    return keyed_hash_of_parts(key, parts)


def keyed_hash_of_parts(key: bytes, parts: Iterable[str]) -> str:
    """`keyed_hash` of parts that come one at a time, so that millions of them need not be held."""
    digest = hashlib.blake2b(key=key, digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
