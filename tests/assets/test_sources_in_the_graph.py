"""`real_instructions` of every kind of source: what is stored, what is left behind, and under which name it counts."""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from dp_assets.assets.real_instructions import real_instructions
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import CONSTANT_MESSAGE, log_file
from tests.corpus.chat_data import talk, write_data_set
from tests.tiny_pipeline import register, tiny_profile, tiny_resources, write_corpus

COLUMNS = {"text": "prompt", "user_id": "user"}
ARENA = "lmsys/chatbot_arena_conversations"


class Folder:
    """A data folder in which corpora are registered and prepared."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home, self.model = home, model

    def prepare(self, source: dict[str, Any], **corpus: Any) -> dg.ExecuteInProcessResult:
        profile = tiny_profile(self.home / "unused.parquet", self.model, **({"source": source} | corpus))
        resources = tiny_resources(profile, self.home / "data")
        register(resources["ledger"], profile)
        return dg.materialize([real_instructions], resources=resources, raise_on_error=False)

    @property
    def rows(self) -> pl.DataFrame:
        return pl.read_parquet(self.home / "data/private/artifacts/real_instructions/*.parquet")

    @property
    def log(self) -> str:
        return log_file(self.home / "data/private").read_text()

    @property
    def corpora(self) -> int:
        return len(Ledger(private_root=str(self.home / "data/private")).state().registrations)


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path) -> Folder:
    return Folder(tmp_path, tiny_model_folder)


def file_source(path: Path) -> dict[str, Any]:
    return {"kind": "file", "path": str(path), "columns": COLUMNS}


def message_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    return "" if error is None else "\n".join(part.message for part in (error, error.cause) if part is not None)


def copies(folder: Path) -> dict[str, dict[str, Any]]:
    """The same rows as every kind of source."""
    rows = pl.read_parquet(write_corpus(folder / "corpus.parquet"))
    (folder / "many").mkdir()
    rows.head(10).write_csv(folder / "many/a.csv")
    rows.tail(-10).write_ndjson(folder / "many/b.jsonl")
    with duckdb.connect(folder / "chat.duckdb") as connection:
        connection.execute("create table chat as select * from rows")
    asked = [
        {"judge": user, "conversation_a": talk(prompt), "language": "English"}
        for prompt, user in rows.select("prompt", "user").iter_rows()
    ]
    write_data_set(folder / "hub", ARENA, asked)
    query = {"kind": "sql", "columns": COLUMNS}
    return {
        "file": file_source(folder / "corpus.parquet"),
        "folder": file_source(folder / "many"),
        "hub": {"kind": "huggingface", "path": str(folder / "hub"), "preset": ARENA},
        "database": query | {"path": str(folder / "chat.duckdb"), "query": "select prompt, user from chat"},
        "query": query | {"query": f"from '{folder}/corpus.parquet'"},
    }


@pytest.mark.parametrize("kind", ["file", "folder", "hub", "database", "query"])
def test_every_kind_of_source_gives_the_same_instructions_and_leaves_nothing_behind(folder: Folder, kind: str) -> None:
    source = copies(folder.home)[kind]
    assert folder.prepare(source).success
    expected = pl.read_parquet(folder.home / "corpus.parquet")
    assert set(folder.rows["text"]) <= set(expected["prompt"])
    assert folder.rows["unit_id"].n_unique() == expected["user"].n_unique()
    assert folder.rows["unit_id"].str.starts_with("user:").all()
    assert list((folder.home / "data/private/tmp").iterdir()) == []


def test_texts_are_stored_redacted_and_in_the_languages_that_were_detected(folder: Folder) -> None:
    texts = ["write to me@example.org about it", "wie backe ich ein Brot ohne Ofen?", "how do I bake bread at home?"]
    pl.DataFrame({"prompt": texts, "user": ["a", "b", "c"]}).write_parquet(folder.home / "a.parquet")
    corpus = {"redact": ["email"], "detect_language": True, "languages": ["en"]}
    assert folder.prepare(file_source(folder.home / "a.parquet"), **corpus).success
    assert set(folder.rows["text"]) == {"write to [EMAIL] about it", texts[2]}


def test_a_named_corpus_stays_one_corpus_whatever_its_file_is_called(folder: Folder) -> None:
    first, second = folder.home / "2026-10.parquet", folder.home / "2026-11.parquet"
    write_corpus(first, num_users=20)
    write_corpus(second, num_users=30)
    assert folder.prepare(file_source(first), name="chat").success
    assert folder.prepare(file_source(second), name="chat", snapshot="2026-11").success
    assert folder.corpora == 1


def test_without_a_name_another_file_is_another_corpus_and_the_same_rows_are_refused(folder: Folder) -> None:
    first, second = (write_corpus(folder.home / name) for name in ("a.parquet", "b.parquet"))
    assert folder.prepare(file_source(first)).success
    for name in ({}, {"name": "another-name"}):
        assert CONSTANT_MESSAGE in message_of(folder.prepare(file_source(second), **name))
        assert "registered already" in folder.log
        log_file(folder.home / "data/private").unlink()


def test_new_rows_of_a_named_corpus_need_a_new_snapshot(folder: Folder) -> None:
    assert folder.prepare(file_source(write_corpus(folder.home / "a.parquet")), name="chat").success
    changed = file_source(write_corpus(folder.home / "b.parquet", num_users=61))
    assert CONSTANT_MESSAGE in message_of(folder.prepare(changed, name="chat"))
    assert "unchanged corpus.snapshot" in folder.log


@pytest.mark.parametrize("changed", [{"split": "test"}, {"preset": "OpenAssistant/oasst1"}])
def test_a_refusal_of_the_reader_is_shown_and_quotes_no_row(folder: Folder, changed: dict[str, str]) -> None:
    message = message_of(folder.prepare(copies(folder.home)["hub"] | changed))
    assert "the data set" in message
    assert "number 0" not in message


def test_what_breaks_while_a_data_set_is_read_shows_the_constant_message(folder: Folder) -> None:
    source = copies(folder.home)["hub"]
    data = folder.home / "hub/data"
    (data / "train-00000-of-00001.parquet").rename(data / "train-00000-of-00002.parquet")
    (data / "train-00001-of-00002.parquet").write_bytes(b"what cannot be read")
    assert "written to the private log" in message_of(folder.prepare(source))
    assert list((folder.home / "data/private/tmp").iterdir()) == []
