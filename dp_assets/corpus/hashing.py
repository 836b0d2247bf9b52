"""Keyed hashes of columns: the order, ids and splits of private rows follow from them and from nothing else.

Each hash is a function of one row and the key of the private zone. Polars' own hash will not do: it has no key and may
change with the version. Without the key nobody can tell whose row a hash belongs to, or steer which rows are kept.
"""

from collections.abc import Sequence

import polars as pl

from dp_assets.privacy.units import keyed_hash


def keyed_hash_of(columns: Sequence[str], *, key: bytes, purpose: str) -> pl.Expr:
    """128 bits as hex for each row, from the columns' values; hashes for two purposes are unrelated.

    Null and every string, the empty one too, hash differently. Values of other types count in Polars' string form,
    which is exact for integers and times.
    """

    def hash_rows(values: pl.Series) -> pl.Series:
        rows = values.struct.unnest().iter_rows()
        # Nulls are told apart here: Polars may leave out a `fill_null` where a condition looks at the same column.
        parts = ((f"={value}" if value is not None else "" for value in row) for row in rows)
        return pl.Series([keyed_hash(key, purpose, *row) for row in parts], dtype=pl.String)

    return pl.struct(pl.col(name).cast(pl.String) for name in columns).map_batches(
        hash_rows, return_dtype=pl.String(), is_elementwise=True
    )
