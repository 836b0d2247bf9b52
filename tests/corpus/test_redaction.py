"""What has a recognizable form is replaced, what merely looks like it stays, and every text is redacted by itself."""

import sys

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.recognizers import NAMED_BY_MODEL, pattern_detectors
from dp_assets.corpus.redaction import KINDS, SECRET, Redaction, redact
from dp_assets.corpus.settings import PHONE_REGIONS
from tests.corpus.redacting import WITHOUT_MODEL, redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to anna.b+x@mail.example.org, please", "Write to [EMAIL], please"),
        ("an address (me@x.de) in brackets", "an address ([EMAIL]) in brackets"),
        ("call +49 30 1234567 now", "call [PHONE] now"),
        ("call (415) 555-0132 now", "call [PHONE] now"),
        ("call 415-555-0132.", "call [PHONE]."),
        ("my number is 2125552368", "my number is [PHONE]"),
        ("please contact me on 0410787999", "please contact me on [PHONE]"),
        ("call 020 7946 0958", "call [PHONE]"),
        ("pay to DE89 3704 0044 0532 0130 00 today", "pay to [IBAN] today"),
        ("send it to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "send it to [CRYPTO]"),
        ("my social security number is 536-90-4399", "my social security number is [SSN]"),
        ("call 0041 44 668 18 00", "call [PHONE]"),
        ("card 4111 1111 1111 1111 expires", "card [CARD] expires"),
        ("card 4111-1111-1111-1111", "card [CARD]"),
        ("card 378282246310005", "card [CARD]"),
        ("host 192.168.0.1 is down", "host [IP] is down"),
        ("http://10.0.0.15:11434 is down", "http://[IP]:11434 is down"),
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
def test_what_has_a_recognizable_form_is_replaced(text: str, expected: str) -> None:
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
        "a rent in the range of 20000-30000 per month",
        "the kit lies in sdk/ndk/25.1.8937393/build",
        "the object 1.3.6.1.4.1.9.9.392.1.3.21.1.20 counts",
        "a score of 0.995773256",
        "who ruled Poland in 1640?",
        "account DE89 3704 0044 0532 0130 01 has a wrong check digit",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("kind", WITHOUT_MODEL)
def test_only_the_chosen_kinds_are_replaced(kind: str) -> None:
    examples = {
        "email": "me@x.de",
        "phone": "+49 30 1234567",
        "card": "4111 1111 1111 1111",
        "ip": "192.168.0.1",
        "iban": "GB82WEST12345698765432",
        "crypto": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "ssn": "536-90-4399",
        "secret": "AKIAIOSFODNN7EXAMPLE",
    }
    text = " and ".join(examples.values())
    assert redacted(text, kind) == text.replace(examples[kind], f"[{kind.upper()}]")


def test_a_text_is_redacted_by_itself_and_a_missing_one_stays_missing() -> None:
    texts = ["me@x.de", None, "call +49 30 1234567", "", "nothing"]
    together = redact(pl.LazyFrame({"text": texts}), Redaction(WITHOUT_MODEL)).collect()["text"].to_list()
    assert together == [None if text is None else redacted(text) for text in texts]
    assert redact(pl.LazyFrame({"text": texts}), Redaction()).collect()["text"].to_list() == texts


def test_without_the_library_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(
        SourceError, match=r"corpus\.redact needs .*presidio-analyzer: pip install 'dp-instructions\[red"
    ):
        redacted("a", "email")
    assert redacted("key AKIAIOSFODNN7EXAMPLE", "secret") == "key [SECRET]"


# No clock is read in the next test: a pattern whose steps grow faster would take an hour, where a second is usual, and
# so meets the limit that every test has.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("unit", ["a", "1 ", "a.", "a:", "(1", "://", "1-", "a@"])
def test_the_steps_for_a_text_grow_no_faster_than_the_square_of_its_length(unit: str) -> None:
    text = unit * (6_000 // len(unit))
    redacted(text)
    redacted(f"{text} 1@1", "email")


def test_the_kinds_that_a_profile_may_name_are_those_that_exist() -> None:
    assert set(pattern_detectors(PHONE_REGIONS)) == set(KINDS) - {SECRET, *NAMED_BY_MODEL}
