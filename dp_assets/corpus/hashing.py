"""Keyed hashes of columns. They alone determine the order, ids and splits of private rows.

Each hash is a function of one row and the key of the private zone. Without the key nobody can tell whose row a hash
belongs to, or influence which rows are kept. Polars' own hash does not serve: it has no key and may change with the
version.
"""

from collections.abc import Sequence

import polars as pl

from dp_assets.privacy.units import keyed_hash


def keyed_hash_of(columns: Sequence[str], *, key: bytes, purpose: str) -> pl.Expr:
    """Return a keyed hash of each row's values in `columns`, 128 bits as hex.

    - Hashes for two purposes are unrelated.
    - Null hashes differently from every string, the empty one included.
    - Values of other types are hashed in Polars' string form, which is exact for integers and times.
    """

    def hash_rows(values: pl.Series) -> pl.Series:
        rows = values.struct.unnest().iter_rows()
        # Nulls are marked here, because Polars may drop a `fill_null` where a condition reads the same column.
        parts = ((f"={value}" if value is not None else "" for value in row) for row in rows)
        return pl.Series([keyed_hash(key, purpose, *row) for row in parts], dtype=pl.String)

    return pl.struct(pl.col(name).cast(pl.String) for name in columns).map_batches(
        hash_rows, return_dtype=pl.String(), is_elementwise=True
    )
