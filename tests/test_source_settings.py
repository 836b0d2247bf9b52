"""Settings of a source that do not fit together are refused by name, before anything is read."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.queries import query_digest
from dp_assets.pipeline.corpus import register_corpus, registration_of, source_of, terms_of
from dp_assets.settings.named import DEMO
from dp_assets.settings.profile import CorpusSettings, Profile, SourceSettings
from dp_assets.stages.statement import public_settings
from resources.ledger.charging import ChargeRefused, Ledger

TEXT = {"text": "t"}
LMSYS = "lmsys/lmsys-chat-1m"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "table"}, "'chitchat', 'file', 'huggingface' or 'sql'"),
        ({"kind": "chitchat", "path": "a.csv"}, "of kind 'chitchat' takes no path"),
        ({"kind": "file", "path": "a.csv", "columns": TEXT, "query": "select 1"}, "of kind 'file' takes no query"),
        ({"kind": "huggingface", "dataset": LMSYS, "url_variable": "URL"}, "takes no url_variable"),
        ({"kind": "huggingface"}, "either `dataset`, an id on the hub, or a local `path`"),
        ({"kind": "huggingface", "dataset": LMSYS, "path": "a"}, "either `dataset`"),
        ({"kind": "huggingface", "dataset": "https://huggingface.co/a/b"}, "String should match pattern"),
        ({"kind": "huggingface", "dataset": LMSYS, "columns": TEXT}, "leave `columns` out"),
        ({"kind": "huggingface", "dataset": "a/b"}, "a `columns` entry for `text`, or a `preset`"),
        ({"kind": "huggingface", "dataset": "a/b", "preset": "c/d"}, "preset"),
        ({"kind": "huggingface", "dataset": "a/b", "columns": TEXT, "steps": {"languages": []}}, "belong to a preset"),
        ({"kind": "huggingface", "dataset": LMSYS, "steps": {"drop_flagged": "some"}}, "'any', 'first', 'last' or"),
        ({"kind": "sql", "columns": TEXT}, "needs `query`"),
        ({"kind": "sql", "query": "select 1"}, "a `columns` entry for `text`"),
        ({"kind": "sql", "query": "select 1", "columns": TEXT, "path": "a", "url_variable": "URL"}, "not both"),
        (
            {"kind": "sql", "query": "select 1", "columns": TEXT, "url_variable": "pg://me:hunter2@db"},
            "give the name of",
        ),
    ],
)
def test_settings_that_do_not_fit_their_kind_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        SourceSettings.model_validate(settings)
    messages = [error["msg"] for error in refusal.value.errors()]
    assert any(message in each for each in messages) or message in str(refusal.value)
    assert not any("hunter2" in each for each in messages)


@pytest.mark.parametrize(
    "changed", [{"name": "My Corpus"}, {"name": ""}, {"redact": ["names"]}, {"detect_language": "perhaps"}]
)
def test_a_name_or_a_step_that_does_not_exist_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changed))):
        CorpusSettings.model_validate(DEMO.corpus.model_dump() | changed)


def profile_of(source: dict[str, Any], **corpus: Any) -> Profile:
    settings = DEMO.model_dump()
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("select replace(a, '  ', '')", "select replace(a, ' ', '')"),
        ('select "a  b"', 'select "a b"'),
        ("select a -- b\n, c", "select a -- b , c"),
        ("select $$  $$", "select $$ $$"),
        ("select a # b\n, c", "select a # b , c"),
    ],
)
def test_white_space_that_says_something_makes_another_query(one: str, other: str) -> None:
    assert query_digest(one) != query_digest(other)


@pytest.mark.parametrize(
    "source",
    [
        {
            "kind": "huggingface",
            "dataset": "secret-team/chats",
            "columns": TEXT,
            "subset": "secret",
            "revision": "secret",
        },
        {"kind": "sql", "query": "select secret", "columns": TEXT, "path": "/srv/secret.duckdb"},
        {"kind": "sql", "query": "select secret", "columns": TEXT, "url_variable": "SECRET_URL"},
    ],
)
def test_a_statement_does_not_say_where_the_source_lies(source: dict[str, Any]) -> None:
    settings = json.dumps(public_settings(profile_of(source, unit="instruction")))
    assert "secret" not in settings.lower()
    assert source["kind"] in settings
