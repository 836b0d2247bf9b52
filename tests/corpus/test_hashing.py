import datetime as dt

import polars as pl

from dp_assets.corpus.hashing import keyed_hash_of


def hashes(rows: pl.DataFrame, *, key: bytes = b"key", purpose: str = "test") -> list[str]:
    return rows.select(keyed_hash_of(rows.columns, key=key, purpose=purpose).alias("hash"))["hash"].to_list()


ROWS = pl.DataFrame({"a": ["x", "xy", "", None, "=", "null"], "b": ["yz", "z", "", "", None, None]})


def test_different_rows_hash_differently_even_if_null_or_joined_alike() -> None:
    assert len(set(hashes(ROWS))) == ROWS.height


def test_a_hash_depends_on_its_row_alone() -> None:
    one_by_one = [hashes(ROWS[position])[0] for position in range(ROWS.height)]
    assert one_by_one == hashes(ROWS)


def test_key_and_purpose_change_every_hash() -> None:
    reference = set(hashes(ROWS))
    assert reference.isdisjoint(hashes(ROWS, key=b"other"))
    assert reference.isdisjoint(hashes(ROWS, purpose="other"))


def test_hashes_are_stable_across_versions() -> None:
    """Ids and splits must survive an upgrade, so the string form of a time is pinned as well."""
    rows = pl.DataFrame({"a": ["x"], "b": [dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)]})
    assert hashes(rows) == ["6726c9ac7071549b5c8c33d9da793bbb"]


def test_an_empty_table_gives_no_hashes() -> None:
    assert hashes(ROWS.clear()) == []
