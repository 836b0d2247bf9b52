"""Units are named as a statement must name them, and a keyed hash tells its parts apart."""

import pytest

from dp_assets.privacy.units import PrivacyUnit, WithoutUser, keyed_hash, keyed_hash_of_parts, unit_in_words

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("unit", "without_user", "words"),
    [
        (PrivacyUnit.USER, WithoutUser.OWN_UNIT, "user, or one row that names no user"),
        (PrivacyUnit.USER, WithoutUser.DROP, "user"),
        (PrivacyUnit.INSTRUCTION, WithoutUser.OWN_UNIT, "instruction"),
        (PrivacyUnit.INSTRUCTION, WithoutUser.DROP, "instruction"),
    ],
)
def test_rows_without_a_user_are_named_as_units_only_where_they_are_some(
    unit: PrivacyUnit, without_user: WithoutUser, words: str
) -> None:
    assert unit_in_words(unit, without_user) == words


def test_parts_that_join_to_the_same_text_hash_differently() -> None:
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc")]
    assert len({keyed_hash(KEY, *each) for each in parts}) == len(parts)
    assert keyed_hash(KEY, "a", "b") == keyed_hash_of_parts(KEY, iter(("a", "b")))


def test_another_key_gives_another_hash_of_128_bits() -> None:
    one, other = keyed_hash(KEY, "user:1"), keyed_hash(b"o" * 32, "user:1")
    assert one != other
    assert len(one) == len(other) == 32
