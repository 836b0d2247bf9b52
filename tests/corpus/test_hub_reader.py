"""The reader of data sets: batch by batch, by name, from typed files only, and refusals that quote no row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.corpus import hub_reader
from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.presets import PRESETS
from tests.corpus.chat_data import talk
from tests.corpus.hub_reading import read, request

pytestmark = pytest.mark.usefixtures("own_caches")


def test_a_conversation_that_opens_with_a_system_message_gives_the_users_words(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, *talk("Who are you?")]
    pl.DataFrame({"messages": [messages, messages[:1], []]}).write_parquet(tmp_path / "chat.parquet")
    rows = read(tmp_path / "chat.parquet", own_columns={"text": "messages"})
    assert rows["text"].to_list() == ["Who are you?", None, None]


def test_any_other_data_set_is_read_by_a_mapping_from_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir()
    pl.DataFrame({"prompt": ["Why?"], "who": [7.0], "other": [1]}).write_parquet(file)
    for path in (tmp_path, file):
        rows = read(path, own_columns={"text": "prompt", "user_id": "who"})
        assert rows.select("text", "user_id").rows() == [("Why?", "7")]


@pytest.mark.parametrize(
    ("users", "named"),
    [
        ({}, "source.columns names user, which a file of the data set .* lacks"),
        ({"User": [7]}, "source.columns names user, which a file of the data set .* lacks"),
        ({"user": [7.0]}, "column 'user' .* holds floats in one file and others in another"),
    ],
)
def test_a_later_file_without_the_column_of_the_users_is_refused_and_names_nobody_in_silence(
    tmp_path: Path, users: dict[str, list[object]], named: str
) -> None:
    pl.DataFrame({"prompt": ["Why?"], "user": [7]}).write_parquet(tmp_path / "train-00000-of-00002.parquet")
    pl.DataFrame({"prompt": ["How?"]} | users).write_parquet(tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(SourceError, match=named):
        read(tmp_path, own_columns={"text": "prompt", "user_id": "user"})


def test_only_the_first_batch_is_read_when_only_the_first_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_reader, "ROWS_IN_A_BATCH", 10)
    (tmp_path / "data").mkdir()
    pl.DataFrame({"prompt": ["Why?"] * 25}).write_parquet(
        tmp_path / "data/train-00000-of-00002.parquet", row_group_size=5
    )
    (tmp_path / "data/train-00001-of-00002.parquet").write_bytes(b"what would fail to be read")
    batches = hub_reader.batches_of(request(tmp_path, own_columns={"text": "prompt"}))
    assert [len(next(batches)) for _ in range(2)] == [10, 10]
    with pytest.raises(Exception, match=r"(?i)parquet"):
        list(batches)


def jsonl(folder: Path) -> Path:
    (folder / "train.jsonl").write_text('{"prompt": "a secret"}\n')
    return folder


def parquet(folder: Path, **columns: Any) -> Path:
    pl.DataFrame({"prompt": ["a secret"]} | columns).write_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("make", "changed", "message"),
    [
        (jsonl, {}, "is stored as json, whose types would be guessed from its rows; .*'refs/convert/parquet'"),
        (parquet, {"own_columns": {"text": "body"}}, "names body, which the data set .* lacks"),
        (parquet, {"split": "test"}, "has no split 'test'; correct source.split"),
        (parquet, {"subset": "nope"}, r"cannot be opened \(ValueError\): check source.dataset"),
        (parquet, {"preset": "OpenAssistant/oasst1"}, "lacks"),
        (lambda folder: parquet(folder, number=[1]), {"own_columns": {"text": "number"}}, "holds Int64"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_said_without_a_word_of_a_row(
    tmp_path: Path, make: Any, changed: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refusal:
        read(make(tmp_path), **({"own_columns": {"text": "prompt"}} | changed))
    assert "secret" not in str(refusal.value)


def test_columns_of_another_type_than_the_presets_are_refused(tmp_path: Path) -> None:
    columns = {name: ["a secret"] for name in PRESETS["lmsys/lmsys-chat-1m"].read}
    with pytest.raises(SourceError, match="do not have the types of preset lmsys/lmsys-chat-1m") as refusal:
        read(parquet(tmp_path, **columns), preset="lmsys/lmsys-chat-1m")
    assert "a secret" not in str(refusal.value)
