"""Secrets are replaced to their end, what introduces them stays, and a long text costs time in proportion."""

import pytest

from dp_assets.corpus.secret_forms import without_secrets
from tests.corpus.redacting import redacted


def test_a_private_key_goes_whole_even_without_its_end() -> None:
    lines = "-----BEGIN PRIVATE KEY-----\nMIIE\nabc\n"
    assert without_secrets(f"a {lines}-----END PRIVATE KEY----- b") == "a [SECRET] b"
    assert without_secrets(f"a {lines}") == "a [SECRET]"


@pytest.mark.parametrize("kept", ["Bearer ", "password: ", 'API_KEY = "', "passphrase is ", "mysql://"])
def test_what_introduces_a_secret_stays(kept: str) -> None:
    ending = "@host" if kept.endswith("://") else ""
    secret = "me:hunter2" if ending else "abcdef0123456789abcdef"
    assert without_secrets(f"{kept}{secret}{ending}") == f"{kept}[SECRET]{ending}"


# No clock is read in the next test: a pattern whose steps grow faster would take an hour, where a second is usual, and
# so meets the limit that every test has.
@pytest.mark.parametrize("unit", ["a", "1 ", "a.", "a:", "(1", "://"])
def test_the_steps_for_secrets_in_a_text_grow_with_its_length(unit: str) -> None:
    redacted(unit * (1_200_000 // len(unit)), "secret")
