"""Privacy unit, neighboring relation and keyed hashes.

The unit is whose presence is hidden. Two corpora are neighbours when one holds all rows of one more unit than the other
(add-or-remove-one), so the number of units is itself private. Where users are the units, a row that names none is a
unit of its own or dropped, as the corpus was registered.
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
    def preparation(self) -> str:
        """What a preparation is called that was seen to treat each of these units apart from all others."""
        return f"{self}-wise"


class WithoutUser(StrEnum):
    """What becomes of a row that names no user where users are the units."""

    OWN_UNIT = "own_unit"
    DROP = "drop"

    @property
    def in_words(self) -> str:
        """The same for people."""
        return "each is a unit of its own" if self is WithoutUser.OWN_UNIT else "left out, whatever they hold"


def unit_in_words(unit: PrivacyUnit, without_user: WithoutUser) -> str:
    """The unit as a statement must name it: a corpus may hold rows without a user."""
    if unit is PrivacyUnit.USER and without_user is WithoutUser.OWN_UNIT:
        return "user, or one row that names no user"
    return str(unit)


def relation_in_words(relation: str) -> str:
    """A neighboring relation for people, such as "add or remove one"."""
    return relation.lower().replace("_", " ")


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
