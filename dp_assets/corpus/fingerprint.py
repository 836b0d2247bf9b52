"""A keyed hash of a whole table, to verify inside the private zone that rows are the same as before.

The order of the rows does not matter; their number, values and column names do. The fingerprint says nothing without
the key, but it tells whoever compares two whether a table changed, so it stays in the private zone.
"""

import polars as pl

from dp_assets.corpus.hashing import keyed_hash_of
from dp_assets.privacy.units import keyed_hash


def fingerprint(rows: pl.LazyFrame, *, key: bytes) -> str:
    """128 bits as hex over all columns, which must be castable to strings (no vectors)."""
    names = sorted(rows.collect_schema().names())
    hashes = rows.select(keyed_hash_of(names, key=key, purpose="fingerprint row").alias("row")).collect()
    return keyed_hash(key, "fingerprint", str(len(names)), *names, *hashes["row"].sort())
