import datetime as dt
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.corpus.sources import ChitchatSource, FileSource, asks_something

RECORDS = [
    {"prompt": "How do I bake bread?", "who": "u1", "when": "2023-01-02T03:04:05Z", "lang": "en", "n": "1"},
    {"prompt": "Tell me, please: a story", "who": "u2", "when": "2023-01-02T03:04:05+02:00", "lang": "de", "n": "2"},
    {"prompt": 'Was heißt "naïve"?', "who": "", "when": "2023-01-02", "lang": None, "n": "3"},
    {"prompt": None, "who": None, "when": "someday", "lang": "en", "n": "4"},
    {"prompt": "two\nlines", "who": "   ", "when": "2023-01-02 03:04:05.5", "lang": "en", "n": None},
]
COLUMNS = {"text": "prompt", "user_id": "who", "created_at": "when", "language": "lang", "instruction_id": "n"}


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]


EXPECTED = {
    "instruction_id": ["1", "2", "3", "4", None],
    "user_id": ["u1", "u2", None, None, None],
    "text": [record["prompt"] for record in RECORDS],
    "language": ["en", "de", None, "en", "en"],
    "created_at": [
        utc(2023, 1, 2, 3, 4, 5),
        utc(2023, 1, 2, 1, 4, 5),
        utc(2023, 1, 2),
        None,
        utc(2023, 1, 2, 3, 4, 5, 500_000),
    ],
    "unread": [None, None, None, "created_at", None],  # "someday" is no time, which is not to have none
    "unread_value": [None, None, None, "someday", None],
}


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))


def write_jsonl_gz(path: Path) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in RECORDS)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "a.jsonl": write_jsonl,
    "a.jsonl.gz": write_jsonl_gz,
    "a.csv": lambda path: pl.DataFrame(RECORDS).write_csv(path),
    "a.parquet": lambda path: pl.DataFrame(RECORDS).write_parquet(path),
}


def scan(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    with TemporaryDirectory() as scratch:
        return FileSource(path, columns).scan(Path(scratch)).collect()


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert scan(tmp_path / name, COLUMNS).equals(pl.DataFrame(EXPECTED, schema=SCANNED_ROWS))


@pytest.mark.parametrize("name", WRITERS)
def test_columns_that_are_not_mapped_are_null(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    rows = scan(tmp_path / name, {"text": "prompt"})
    assert rows.schema == SCANNED_ROWS
    assert rows.drop("text").null_count().row(0) == (len(RECORDS),) * 6


@pytest.mark.parametrize("name", [name for name in WRITERS if "json" not in name])
def test_a_missing_column_is_named_and_nothing_of_the_file_is_quoted(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    with pytest.raises(SourceError, match=r"names body, .*lacks") as error:
        scan(tmp_path / name, {"text": "body"})
    assert "bread" not in str(error.value)
    assert "prompt" not in str(error.value)


@pytest.mark.parametrize("key", ["body", "Prompt", "nested.prompt"])
@pytest.mark.parametrize("name", [name for name in WRITERS if "json" in name])
def test_a_key_that_no_json_object_has_is_refused_by_its_name(tmp_path: Path, name: str, key: str) -> None:
    WRITERS[name](tmp_path / name)
    with pytest.raises(SourceError, match=rf"names {key}, which no object of source\.path .* has") as refusal:
        scan(tmp_path / name, {"text": key})
    assert "bread" not in str(refusal.value)


def test_a_key_that_some_json_objects_lack_is_missing_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "one"}\n{"t": "two", "u": "anna"}\n')
    (tmp_path / "b.jsonl").write_text('{"t": "three"}\n')  # Spark leaves nulls out
    rows = scan(tmp_path, {"text": "t", "user_id": "u"})
    assert rows.select("text", "user_id", "unread").rows() == [
        ("one", None, None),
        ("two", "anna", None),
        ("three", None, None),
    ]


def test_user_ids_name_the_same_users_whatever_type_holds_them(tmp_path: Path) -> None:
    path, found = tmp_path / "a.parquet", []
    for dtype in (pl.Int64, pl.Float64, pl.String):
        ids = pl.Series([1, 20, None], dtype=pl.Int64).cast(dtype)
        pl.DataFrame({"prompt": ["a", "b", "c"], "who": ids}).write_parquet(path)
        found.append(scan(path, {"text": "prompt", "user_id": "who"})["user_id"].to_list())
    assert found == [["1", "20", None]] * 3


def test_a_malformed_json_line_costs_its_own_row_only(tmp_path: Path) -> None:
    good = [json.dumps(record).encode() for record in RECORDS]
    bad = [
        b"not json",
        b'{"prompt": "cut',
        b'{"prompt": "\xff\xfe", "who": "\xff"}',
        b"",
        b"[1]",
        b'{"prompt": "\\ud800"}',
    ]
    lines = [line for pair in zip(good, bad, strict=False) for line in pair] + bad[len(good) :]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    rows = scan(tmp_path / "a.jsonl", COLUMNS)
    assert rows.height >= len(good)
    assert rows.filter(pl.col("instruction_id").is_in(["1", "2", "3", "4"])).height == 4
    assert set(rows["text"].drop_nulls()) >= {record["prompt"] for record in RECORDS if record["prompt"]}


def test_a_ragged_or_undecodable_csv_line_costs_its_own_row_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,who\nfirst one,u1\ntoo,many,cells,here\nfew\nb\xffd,\xff\nlast one,u2\n")
    rows = scan(tmp_path / "a.csv", {"text": "prompt", "user_id": "who"})
    assert rows.filter(pl.col("user_id").is_in(["u1", "u2"]))["text"].to_list() == ["first one", "last one"]
    assert rows.height == 5


@pytest.mark.parametrize("first", ["2023-01-02T03:04:05Z", "2023-01-02", "02.01.2023", "soon"])
def test_how_a_time_is_read_does_not_depend_on_the_row_before_it(tmp_path: Path, first: str) -> None:
    later = ["2023-05-06T07:08:09Z", "2023-05-06 07:08:09", "2023-05-06T09:08:09+02:00"]
    pl.DataFrame({"prompt": ["x"] * 4, "when": [first, *later]}).write_csv(tmp_path / "a.csv")
    rows = scan(tmp_path / "a.csv", {"text": "prompt", "created_at": "when"})
    assert rows["created_at"][1:].to_list() == [utc(2023, 5, 6, 7, 8, 9)] * 3


def test_parquet_times_numbers_and_categories_are_converted(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "prompt": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
            "who": [7, 8, None],
            "score": [1.5, float("nan"), None],
            "when": [dt.datetime(2023, 1, 2, 3), None, dt.datetime(2024, 1, 1)],
            "day": [dt.date(2023, 1, 2), None, None],
        }
    ).with_columns(local=pl.col("when").dt.replace_time_zone("Europe/Berlin"))
    frame.write_parquet(tmp_path / "a.parquet")
    rows = scan(tmp_path / "a.parquet", {"text": "prompt", "user_id": "who", "created_at": "when"})
    assert rows["user_id"].to_list() == ["7", "8", None]
    assert rows["created_at"].to_list() == [utc(2023, 1, 2, 3), None, utc(2024, 1, 1)]
    other = scan(tmp_path / "a.parquet", {"text": "prompt", "user_id": "score", "created_at": "local"})
    assert other["user_id"].to_list() == ["1.5", None, None]
    assert other["created_at"][0] == utc(2023, 1, 2, 2)
    assert scan(tmp_path / "a.parquet", {"text": "prompt", "created_at": "day"})["created_at"][0] == utc(2023, 1, 2)


def test_a_missing_file_an_unknown_suffix_and_a_broken_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is neither a file nor a folder"):
        FileSource(tmp_path / "absent.csv", {"text": "t"}).require_opened()
    with pytest.raises(SourceError, match=r"unknown suffix; use one of \.parquet, \.csv, .*\.ndjson, \.json, all"):
        FileSource(tmp_path / "a.xlsx", {"text": "t"})
    (tmp_path / "a.parquet").write_text("a secret")
    with pytest.raises(SourceError, match="is not a readable Parquet file") as error:
        FileSource(tmp_path / "a.parquet", {"text": "t"}).require_opened()
    assert "secret" not in str(error.value)


def test_an_empty_file_has_no_columns_and_no_rows(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match="lacks"):
        FileSource(tmp_path / "a.csv", {"text": "t"}).require_opened()
    assert scan(tmp_path / "a.jsonl", {"text": "t"}).is_empty()


def test_a_file_has_one_locator_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    paths = (tmp_path / "a.jsonl", Path("a.jsonl"), Path("../") / tmp_path.name / "a.jsonl", Path("link.jsonl"))
    assert {FileSource(path, COLUMNS).locator for path in paths} == {f"file:{(tmp_path / 'a.jsonl').resolve()}"}


@pytest.mark.parametrize(
    ("messages", "asks"),
    [
        (["nice, and you?"], True),
        (["hello there", "What do you like"], True),
        (["TELL me more about it"], True),
        (["\"what's up my friend"], True),
        (["i like what you do"], False),
        (["whatever you say"], False),
        ([""], False),
    ],
)
def test_a_turn_asks_if_a_message_has_a_question_mark_or_opens_like_a_question(messages: list[str], asks: bool) -> None:
    assert asks_something(messages) is asks


def test_chitchat_holds_asking_turns_of_a_thousand_senders() -> None:
    rows = ChitchatSource().scan().collect()
    words = rows["text"].str.count_matches(r"\S+")
    assert rows.schema == SCANNED_ROWS
    assert rows.drop("unread", "unread_value").null_count().sum_horizontal().item() == 0
    assert rows["unread"].null_count() == rows.height
    assert words.is_between(5, 60).all()
    assert rows["instruction_id"].is_unique().all()
    assert (rows.height, rows["user_id"].n_unique()) == (34_693, 1_033)
    assert rows["created_at"].min() == utc(2018, 4, 10, 18, 2, 17)


def write_folder(folder: Path) -> Path:
    """The records of every format, in folders of folders, beside what is passed over."""
    for place, (name, write) in zip(("", "b", "b/c", "d"), WRITERS.items(), strict=True):
        (folder / place).mkdir(parents=True, exist_ok=True)
        write(folder / place / name)
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.csv").touch()
    (folder / "_old").mkdir()
    (folder / "_old" / "a.csv").touch()
    return folder


def test_a_folder_gives_the_rows_of_all_its_files_whatever_their_formats(tmp_path: Path) -> None:
    rows = scan(write_folder(tmp_path), COLUMNS)
    expected = pl.DataFrame(EXPECTED, schema=SCANNED_ROWS)
    assert rows.equals(pl.concat([expected] * len(WRITERS)))


def test_columns_of_a_folders_files_are_found_by_name_whatever_their_order_and_type(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"], "who": [7]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"who": ["7"], "extra": [1.5], "prompt": ["b"]}).write_parquet(tmp_path / "b.parquet")
    rows = scan(tmp_path, {"text": "prompt", "user_id": "who"})
    assert rows.select("text", "user_id").rows() == [("a", "7"), ("b", "7")]


@pytest.mark.parametrize(
    ("name", "message"),
    [("anna.csv", "names who, which a file below .* lacks"), ("anna.txt", "a file below .* has an unknown suffix")],
)
def test_what_is_wrong_with_a_file_of_a_folder_is_said_without_its_name(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).write_text("prompt,other\na secret,1\n")
    with pytest.raises(SourceError, match=message) as refusal:
        scan(tmp_path, {"text": "prompt", "user_id": "who"})
    assert "anna" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_folder_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no file with one of the suffixes \.parquet"):
        scan(tmp_path, {"text": "prompt"})


def test_chat_messages_in_json_lines_stand_for_their_first_user_turn_as_in_parquet(tmp_path: Path) -> None:
    conversations = [
        [
            {"role": "system", "content": "be kind"},
            {"role": "User", "content": "hello"},
            {"role": "user", "content": "2"},
        ],
        [{"role": "assistant", "content": "nobody asked"}],
        [{"role": "human", "content": 'quoted "é"\nand a line'}],
        [],
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in conversations))
    message = pl.Struct({"role": pl.String, "content": pl.String})
    frame = pl.DataFrame({"messages": conversations}, schema={"messages": pl.List(message)})
    frame.write_parquet(tmp_path / "chat.parquet")
    texts = [scan(tmp_path / name, {"text": "messages"})["text"].to_list() for name in ("chat.jsonl", "chat.parquet")]
    assert texts[0] == texts[1] == ["hello", None, 'quoted "é"\nand a line', None]


def test_a_json_line_whose_messages_are_odd_costs_its_own_row_only(tmp_path: Path) -> None:
    good = json.dumps({"t": [{"role": "user", "content": "kept"}], "u": "a"})
    odd = [[{"role": "user", "content": ["parts"]}], [{"content": "no role"}], ["a", 1], [{"role": None}]]
    lines = [good, *(json.dumps({"t": each, "u": "b"}) for each in odd), "junk", json.dumps({"t": '["a", "string"]'})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows = scan(tmp_path / "a.jsonl", {"text": "t", "user_id": "u"})
    assert rows["text"].to_list() == ["kept", "parts", *[None] * 4, '["a", "string"]']
    assert rows["user_id"].to_list() == ["a", *["b"] * 4, None, None]
    assert rows["unread"].to_list() == [None, None, *["text"] * 3, "line", None]
