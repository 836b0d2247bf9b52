"""What has a recognisable form is replaced, what merely looks like it stays, and every text is redacted by itself."""

import time
from typing import get_args

import polars as pl
import pytest

from dp_assets.corpus.redaction import DETECTORS, is_card_number, redact
from resources.profile import CorpusSettings

KINDS = tuple(DETECTORS)


def redacted(text: str, *kinds: str) -> str:
    rows = pl.LazyFrame({"text": [text]})
    (changed,) = redact(rows, kinds=kinds or KINDS).collect()["text"]
    return str(changed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to anna.b+x@mail.example.org, please", "Write to [EMAIL], please"),
        ("an address (me@x.de) in brackets", "an address ([EMAIL]) in brackets"),
        ("call +49 30 1234567 now", "call [PHONE] now"),
        ("call (415) 555-0132 now", "call [PHONE] now"),
        ("call 415-555-0132.", "call [PHONE]."),
        ("call 030/1234567-8", "call [PHONE]"),
        ("call 0041 44 668 18 00", "call [PHONE]"),
        ("card 4111 1111 1111 1111 expires", "card [CARD] expires"),
        ("card 4111-1111-1111-1111", "card [CARD]"),
        ("card 378282246310005", "card [CARD]"),
        ("host 192.168.0.1 is down", "host [IP] is down"),
        ("host 2001:db8::8a2e:370:7334 is down", "host [IP] is down"),
        ("key AKIAIOSFODNN7EXAMPLE", "key [SECRET]"),
        ("export OPENAI_API_KEY=sk-proj-abcdefghij0123456789ABCD", "export OPENAI_API_KEY=[SECRET]"),
        ("use ghp_" + "a1" * 18 + " for it", "use [SECRET] for it"),
        ("Authorization: Bearer abcdef0123456789abcdef==", "Authorization: Bearer [SECRET]"),
        ('{"password": "hunter2!"}', '{"password": "[SECRET]"}'),
        ("my password is hunter2!", "my password is [SECRET]"),
        ("postgres://me:hunter2@db/x", "postgres://[SECRET]@db/x"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_123", "[SECRET]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nend", "[SECRET]\nend"),
        ("me@x.de and you@y.de", "[EMAIL] and [EMAIL]"),
    ],
)
def test_what_has_a_recognisable_form_is_replaced(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "between 2023-01-02 and 2023-05-06",
        "the years 1914-1918 and 1939-1945",
        "it costs 1,000,000.50 or 12 345 678 dollars",
        "pi is 3.14159265358979",
        "order 4111 1111 1111 1112 is no card",
        "version 1.2.3 of 300.400.500.600",
        "at 12:30:45 the ratio was 3:4",
        "import a::b from std::vec",
        "follow @anna on the site",
        "how do I reset my password in Windows?",
        "the token is expired, says the page",
        "a secret: nobody knows",
        "2 + 2 = 4 and 1000000007 is a prime",
        "0 1 1 2 3 5 8 13 21 34",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_chosen_kinds_are_replaced(kind: str) -> None:
    examples = {
        "email": "me@x.de",
        "phone": "+49 30 1234567",
        "card": "4111 1111 1111 1111",
        "ip": "192.168.0.1",
        "secret": "AKIAIOSFODNN7EXAMPLE",
    }
    text = " and ".join(examples.values())
    assert redacted(text, kind) == text.replace(examples[kind], f"[{kind.upper()}]")


def test_a_text_is_redacted_by_itself_and_a_missing_one_stays_missing() -> None:
    texts = ["me@x.de", None, "call +49 30 1234567", "", "nothing"]
    together = redact(pl.LazyFrame({"text": texts}), kinds=KINDS).collect()["text"].to_list()
    assert together == [None if text is None else redacted(text) for text in texts]
    assert redact(pl.LazyFrame({"text": texts}), kinds=()).collect()["text"].to_list() == texts


def test_luhns_check_tells_a_card_number_from_another() -> None:
    assert is_card_number("4111111111111111")
    assert not is_card_number("4111111111111112")
    assert not is_card_number("0000000000000000")
    assert not is_card_number("42")


@pytest.mark.parametrize(
    "text", ["a" * 60_000, "1 " * 30_000, "a." * 30_000, "a:" * 30_000, "(1" * 30_000, "://" * 20_000]
)
def test_a_long_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    began = time.process_time()
    redacted(text)
    assert time.process_time() - began < 5


def test_the_kinds_that_a_profile_may_name_are_those_that_exist() -> None:
    (choices, _) = get_args(CorpusSettings.model_fields["redact"].annotation)
    assert set(get_args(choices)) == set(KINDS)
