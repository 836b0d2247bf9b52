"""The terms, the locator and the registration of a profile's corpus, and the sources that do not fit them."""

import json
from pathlib import Path
from typing import Any

import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.pipeline.corpus import register_corpus, registration_of, source_of, terms_of
from dp_assets.settings.named import load_profile
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import ChargeRefused, Ledger

TEXT = {"text": "t"}
LMSYS = "lmsys/lmsys-chat-1m"


def profile_of(source: dict[str, Any], **corpus: Any) -> Profile:
    settings = load_profile("demo").model_dump()
    return Profile.model_validate(settings | {"corpus": settings["corpus"] | {"source": source} | corpus})


def test_a_preset_without_users_is_refused_where_users_are_the_units() -> None:
    with pytest.raises(
        SourceError, match=r"lmsys-chat-1m does not say who wrote a row; set corpus\.unit to 'instruction'"
    ):
        terms_of(profile_of({"kind": "huggingface", "dataset": LMSYS}), declared_public=False)
    terms_of(profile_of({"kind": "huggingface", "dataset": LMSYS}, unit="instruction"), declared_public=False)


def test_the_columns_that_a_preset_reads_units_from_are_registered() -> None:
    profile = profile_of({"kind": "huggingface", "dataset": "allenai/WildChat-1M"})
    registered = json.loads(terms_of(profile, declared_public=False).unit_columns)
    assert {name: registered[name] for name in ("user_id", "created_at")} == {
        "user_id": "hashed_ip",
        "created_at": "timestamp",
    }


def test_a_locator_holds_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUS_URL", "postgresql://me:hunter2@db/chat")
    source = {
        "kind": "sql",
        "query": "select t, u from x",
        "columns": TEXT | {"user_id": "u"},
        "url_variable": "CORPUS_URL",
    }
    assert source_of(profile_of(source)).locator == "sql:$CORPUS_URL"


def of_query(query: str) -> Profile:
    source = {"kind": "sql", "query": query, "columns": TEXT | {"user_id": "u"}, "path": "/srv/chat.duckdb"}
    return profile_of(source)


def test_a_query_that_computes_another_user_is_refused_for_a_registered_corpus(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    register_corpus(ledger, of_query("select t, author as u from x"), declared_public=False)
    assert registration_of(ledger, of_query("\nselect t,\n  author as u\nfrom x "))
    with pytest.raises(ChargeRefused, match=r"another corpus\.source\.query; .*restore them"):
        registration_of(ledger, of_query("select t, author || 'x' as u from x"))
