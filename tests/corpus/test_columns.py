"""Which columns a mapping may name and which types fit them; what does not fit is refused by its name."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.sources import FileSource


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "number"}, "mapped to text, holds Int64; it must hold strings"),
        ({"text": "many"}, "mapped to text, holds List; it must hold strings, or chat messages"),
        ({"text": "prompt", "created_at": "flag"}, "mapped to created_at, holds Boolean; it must hold times"),
        ({"text": "prompt", "user_id": "span"}, "mapped to user_id, holds Duration; it must hold strings, numbers"),
    ],
)
def test_a_column_of_an_unfit_type_is_named(tmp_path: Path, columns: Mapping[str, str], message: str) -> None:
    row = {"prompt": ["a"], "number": [1], "many": [[1]], "flag": [True], "span": [dt.timedelta(1)]}
    pl.DataFrame(row).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=message):
        FileSource(tmp_path / "a.parquet", columns).require_opened()


@pytest.mark.parametrize("columns", [{}, {"user_id": "u"}, {"text": "t", "txt": "t"}])
def test_a_mapping_without_text_or_with_an_unknown_name_is_refused(tmp_path: Path, columns: Mapping[str, str]) -> None:
    with pytest.raises(SourceError, match=r"source\.columns must map `text`"):
        FileSource(tmp_path / "a.csv", columns)


@pytest.mark.parametrize("column", ["user_id", "instruction_id"])
@pytest.mark.parametrize("dtype", [pl.Float32(), pl.Struct({"id": pl.Float32()}), pl.List(pl.Float32)], ids=str)
def test_ids_in_floats_of_32_bits_are_refused_since_they_run_together(
    tmp_path: Path, column: str, dtype: pl.DataType
) -> None:
    pl.DataFrame({"body": ["why?"], "stored": [None]}, schema_overrides={"stored": dtype}).write_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(SourceError, match=rf"mapped to {column}, holds \w+; it must hold .* no floats of 32 bits"):
        FileSource(tmp_path / "a.parquet", {"text": "body", column: "stored"}).require_opened()
