"""A user's own public preference pairs."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pytest

from dp_assets.alignment.preference_file import PreferenceFileError, read_preference_file
from dp_assets.corpus.schemas import PREFERENCE_PAIRS, check_schema

ROWS = pl.DataFrame(
    {
        "prompt": ["why?", " how? ", "why?", "who?", None, "what?", "where?"],
        "chosen": ["because", "so", "because", "I", "x", " ", "here"],
        "rejected": ["no", "not so", "no", "I ", "y", "z", "nowhere"],
        "source": ["mine"] * 7,
    }
)
KEPT = [("why?", "because", "no"), ("how?", "so", "not so"), ("where?", "here", "nowhere")]


def write(folder: Path, ending: str, rows: pl.DataFrame = ROWS) -> Path:
    path = folder / f"pairs{ending}"
    if ending == ".parquet":
        rows.write_parquet(path)
    elif ending == ".jsonl.gz":
        path.write_bytes(gzip.compress(rows.write_ndjson().encode()))
    elif ending == ".json.zst":
        path.write_bytes(pyarrow.compress(json.dumps(rows.to_dicts()).encode(), codec="zstd", asbytes=True))
    elif ending == ".json":
        path.write_text(json.dumps(rows.to_dicts(), indent=2))
    else:
        rows.write_ndjson(path)
    return path


def read(path: Path, *, num_pairs: int = 100, seed: int = 0) -> Any:
    return read_preference_file(path, num_pairs=num_pairs, seed=seed)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz", ".NDJSON", ".json", ".json.zst"])
def test_every_format_gives_the_same_pairs_and_says_what_was_dropped(tmp_path: Path, ending: str) -> None:
    made = read(write(tmp_path, ending))
    assert made.rows.select("prompt", "chosen", "rejected").rows() == KEPT
    assert made.rows["synthetic_id"].to_list() == ["file-0", "file-1", "file-6"]
    assert made.dropped == {"incomplete": 2, "same": 1, "repeated": 1}
    check_schema(made.rows, PREFERENCE_PAIRS, name="preference_pairs")


def test_more_pairs_than_asked_for_are_drawn_by_the_seed_and_stay_in_order(tmp_path: Path) -> None:
    rows = pl.DataFrame({name: [f"{name} {row}" for row in range(50)] for name in ("prompt", "chosen", "rejected")})
    path = write(tmp_path, ".parquet", rows)
    made = read(path, num_pairs=10)
    numbers = [int(name.removeprefix("file-")) for name in made.rows["synthetic_id"]]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert made.dropped == {"surplus": 40}
    assert made.rows.equals(read(path, num_pairs=10).rows)
    assert not made.rows.equals(read(path, num_pairs=10, seed=1).rows)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (ROWS.drop("chosen"), "chosen is missing"),
        (ROWS.with_columns(rejected=pl.lit(3)), "rejected is Int32"),
        (ROWS.with_columns(prompt=pl.concat_list("prompt")), r"prompt is List\(String\)"),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_named_with_the_setting(
    tmp_path: Path, change: pl.DataFrame, named: str
) -> None:
    with pytest.raises(PreferenceFileError, match=rf"preferences\.path .*prompt, chosen, rejected.*{named}.*Rename"):
        read(write(tmp_path, ".parquet", change))


@pytest.mark.parametrize("name", ["missing.parquet", "pairs.xlsx"])
def test_a_file_that_is_missing_or_of_another_format_is_named_with_the_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "pairs.xlsx").write_text("")
    with pytest.raises(PreferenceFileError, match=rf"preferences\.path .*{name}.*\.parquet, \.jsonl"):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz", ".json.zst"])
def test_a_damaged_file_is_named_with_the_setting(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"pairs{ending}"
    path.write_bytes(b'{"prompt": "why?", "cho')
    with pytest.raises(PreferenceFileError, match=r"preferences\.path .*write it again|must have the columns"):
        read(path)


def test_types_are_not_guessed_from_the_first_rows(tmp_path: Path) -> None:
    first = [{"prompt": f"p{row}", "chosen": f"g{row}", "rejected": None, "score": 1} for row in range(150)]
    later = [{"prompt": "why?", "chosen": "so", "rejected": "no", "score": 0.5, "more": {"a": [1]}}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in (*first, *later)))
    made = read(path)
    assert made.rows.select("prompt", "chosen", "rejected").rows() == [("why?", "so", "no")]
    assert made.dropped == {"incomplete": 150}


def test_a_line_that_holds_no_texts_costs_its_own_pair_only_and_is_counted(tmp_path: Path) -> None:
    lines = ["{cut", json.dumps({"prompt": "p", "chosen": ["parts"], "rejected": "r"}), "[1]"]
    good = json.dumps({"prompt": "why?", "chosen": "so", "rejected": "no"})
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, good]))
    made = read(tmp_path / "pairs.jsonl")
    assert made.rows["prompt"].to_list() == ["why?"]
    assert made.dropped == {"unreadable": 3}


def test_a_json_file_whose_column_never_holds_a_text_is_refused_by_its_name(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": [{"role": "user", "content": "x"}], "rejected": None}] * 3
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(PreferenceFileError, match=r"chosen is Object; rejected is Null\. Rename or convert"):
        read(tmp_path / "pairs.jsonl")
