import datetime as dt
from collections.abc import Callable

import polars as pl
import pytest

from dp_assets.corpus.fingerprint import Fingerprint, fingerprint
from dp_assets.privacy.units import keyed_hash

ROWS = pl.DataFrame(
    {
        "unit_id": ["u1", "u1", "u2"],
        "text": ["a", None, "b"],
        "created_at": pl.Series([dt.datetime(2026, 1, 1), None, None], dtype=pl.Datetime("us", "UTC")),
    }
)


def test_the_order_of_rows_and_columns_does_not_matter() -> None:
    reference = fingerprint(ROWS.lazy(), key=b"key")
    assert fingerprint(ROWS.reverse().lazy(), key=b"key") == reference
    assert fingerprint(ROWS.select(ROWS.columns[::-1]).lazy(), key=b"key") == reference


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.head(2),
        lambda rows: pl.concat([rows, rows.tail(1)]),
        lambda rows: rows.with_columns(pl.col("text").fill_null("")),
        lambda rows: rows.with_columns(pl.col("created_at") + pl.duration(microseconds=1)),
        lambda rows: rows.rename({"text": "texts"}),
        lambda rows: rows.with_columns(unit_id="text", text="unit_id"),
        lambda rows: rows.clear(),
    ],
)
def test_every_change_of_the_rows_shows(change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    assert fingerprint(change(ROWS).lazy(), key=b"key") != fingerprint(ROWS.lazy(), key=b"key")


def test_the_key_matters() -> None:
    assert fingerprint(ROWS.lazy(), key=b"other") != fingerprint(ROWS.lazy(), key=b"key")


MANY = pl.DataFrame({"b": [str(n) for n in range(5000)], "a": [None if n % 3 else n for n in range(5000)]})


def test_it_is_the_keyed_hash_of_the_sorted_hashes_of_the_rows() -> None:
    """By which older ledgers know their rows."""
    rows = MANY.select("a", "b").cast(pl.String).rows()
    hashes = [keyed_hash(b"key", "fingerprint row", *("" if v is None else f"={v}" for v in row)) for row in rows]
    assert any(row_hash.endswith("00") for row_hash in hashes)
    assert fingerprint(MANY.lazy(), key=b"key") == keyed_hash(b"key", "fingerprint", "2", "a", "b", *sorted(hashes))


@pytest.mark.parametrize("size", [1, 999, 5000])
def test_pieces_in_any_order_give_the_fingerprint_of_the_whole(size: int) -> None:
    whole = Fingerprint(MANY.columns, key=b"key")
    for piece in reversed(list(MANY.iter_slices(size))):
        whole.add(piece)
    assert whole.hexdigest() == fingerprint(MANY.lazy(), key=b"key")
