"""Batches that are put down come back as one table in their order, whatever their number."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.corpus.spool import spool, spooled


def batch(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"text": texts}).select(
        pl.col(name) if name == "text" else pl.lit(None, dtype).alias(name) for name, dtype in SCANNED_ROWS.items()
    )


@pytest.mark.parametrize("number", [0, 1, 12])
def test_what_is_put_down_comes_back_in_its_order(tmp_path: Path, number: int) -> None:
    spool((batch(f"{place} a", f"{place} b") for place in range(number)), tmp_path)
    rows = spooled(tmp_path).collect()
    assert rows.schema == SCANNED_ROWS
    assert rows["text"].to_list() == [f"{place} {each}" for place in range(number) for each in "ab"]


def test_a_batch_is_on_the_disk_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    found: list[int] = []

    def batches() -> Iterator[pl.DataFrame]:
        for place in range(3):
            found.append(spooled(tmp_path).collect().height if place else 0)
            yield batch("a")

    spool(batches(), tmp_path)
    assert found == [0, 1, 2]
