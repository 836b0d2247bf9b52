"""Privacy unit, neighboring relation and keyed hashes.

The guarantee hides whether a unit is in the corpus. Two corpora are neighbors when one holds all rows of one more unit
than the other (add-or-remove-one), so the number of units is itself private. With users as units (user-level DP), a row
that names no user is a unit of its own or is dropped, as the registration of the corpus says.
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
        """The verdict in evidence on a preparation that was observed to treat each unit apart from all others."""
        return f"{self}-wise"


class WithoutUser(StrEnum):
    """The treatment of a row that names no user where users are the units."""

    OWN_UNIT = "own_unit"
    DROP = "drop"

    @property
    def in_words(self) -> str:
        """The treatment in words, for reports and the command line."""
        return "each is a unit of its own" if self is WithoutUser.OWN_UNIT else "left out, whatever they hold"


def unit_in_words(unit: PrivacyUnit, without_user: WithoutUser) -> str:
    """Return the unit as a statement must name it: a corpus may hold rows without a user."""
    if unit is PrivacyUnit.USER and without_user is WithoutUser.OWN_UNIT:
        return "user, or one row that names no user"
    return str(unit)


def relation_in_words(relation: str) -> str:
    """Return a neighboring relation in words, such as "add or remove one"."""
    return relation.lower().replace("_", " ")


def keyed_hash(key: bytes, *parts: str) -> str:
    """Return 128 bits of keyed BLAKE2b over length-prefixed parts, as hex; without the key it reveals nothing."""
    return keyed_hash_of_parts(key, parts)


def keyed_hash_of_parts(key: bytes, parts: Iterable[str]) -> str:
    """Return `keyed_hash` of parts from an iterator, so that millions of parts need not be in memory at once."""
    digest = hashlib.blake2b(key=key, digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
