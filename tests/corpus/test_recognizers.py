"""Personal data as Presidio recognizes it: by regions and installed models, offline, and by known versions."""

import socket
from typing import Any

import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.redaction import Redaction
from tests.corpus.redacting import redacted


def test_numbers_without_a_country_code_follow_the_regions() -> None:
    text = "llame al 912 345 678"
    assert redacted(text, "phone", phone_regions=["ES"]) == "llame al [PHONE]"
    assert redacted(text, "phone", phone_regions=["US"]) == text


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert redacted("write to me@x.co.uk") == "write to [EMAIL]"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spaCy pipeline that knows one person and one place."""
    import spacy

    folder, pipeline = tmp_path_factory.mktemp("spacy") / "en_tiny", spacy.blank("en")
    known = [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "Paris"}]
    pipeline.add_pipe("entity_ruler").add_patterns(known)
    pipeline.to_disk(folder)
    return str(folder)


def test_people_and_places_are_those_of_the_language_model(model: str) -> None:
    text = "Did Ada Lovelace go to Paris?"
    assert redacted(text, "person", model=model) == "Did [PERSON] go to Paris?"
    assert redacted(text, "place", model=model) == "Did Ada Lovelace go to [PLACE]?"


def test_a_language_model_is_never_downloaded() -> None:
    with pytest.raises(
        SourceError, match=r"corpus\.redaction_model 'en_core_web_none' is not installed: python -m spacy"
    ):
        redacted("a", "person", model="en_core_web_none")


def test_the_versions_of_what_recognizes_are_known(model: str) -> None:
    assert Redaction(("secret",)).versions() == Redaction().versions() == {}
    assert set(Redaction(("email",)).versions()) == {"presidio-analyzer", "phonenumbers", "spacy"}
    assert Redaction(("person",), model=model).versions()["en_pipeline"] == "0.0.0"
