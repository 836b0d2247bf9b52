"""A user's own public preference pairs."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl
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
    elif ending == ".jsonl":
        rows.write_ndjson(path)
    else:
        path.write_bytes(gzip.compress(rows.write_ndjson().encode()))
    return path


def read(path: Path, *, num_pairs: int = 100, seed: int = 0) -> Any:
    return read_preference_file(path, num_pairs=num_pairs, seed=seed)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz"])
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


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".gz"])
def test_a_damaged_file_is_named_with_the_setting(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"pairs{ending}"
    path.write_bytes(b'{"prompt": "why?", "cho')
    with pytest.raises(PreferenceFileError, match=r"preferences\.path .*write it again|must have the columns"):
        read(path)
