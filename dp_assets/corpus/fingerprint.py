"""A keyed hash of a whole table, to verify inside the private zone that its rows have not changed.

It depends on the number of rows, their values and the column names, and not on the order of rows. Without the key it
reveals nothing about a row, but comparing two fingerprints reveals whether a table changed. So it stays in the private
zone.

Rows are hashed as they arrive. Memory holds 16 bytes a row, because the hashes have to be sorted.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.corpus.hashing import keyed_hash_of
from dp_assets.privacy.units import keyed_hash_of_parts

BYTES_OF_A_HASH = 16
ROWS_IN_A_BATCH = 20_000


class Fingerprint:
    """The fingerprint of a table that arrives in pieces, in any order.

    `columns` are the table's columns, which must be castable to strings (no vectors).
    """

    def __init__(self, columns: Sequence[str], *, key: bytes) -> None:
        self._columns, self._key = sorted(columns), key
        self._hashes: list[npt.NDArray[np.bytes_]] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Add further rows."""
        hashes = rows.select(keyed_hash_of(self._columns, key=self._key, purpose="fingerprint row")).to_series()
        self._hashes.append(np.frombuffer(bytes.fromhex("".join(hashes)), dtype=f"S{BYTES_OF_A_HASH}"))

    def hexdigest(self) -> str:
        """Return the fingerprint of all rows so far, 128 bits as hex."""
        names = ("fingerprint", str(len(self._columns)), *self._columns)
        return keyed_hash_of_parts(self._key, chain(names, self._sorted_hashes()))

    def _sorted_hashes(self) -> Iterator[str]:
        everything = np.sort(np.concatenate([np.empty(0, f"S{BYTES_OF_A_HASH}"), *self._hashes]))
        for start in range(0, everything.nbytes, BYTES_OF_A_HASH):
            # Sliced by position, because elements of this dtype lose zero bytes at their end.
            yield everything.view(np.uint8)[start : start + BYTES_OF_A_HASH].tobytes().hex()


def fingerprint(rows: pl.LazyFrame, *, key: bytes) -> str:
    """Return the fingerprint of a table, which is read in batches."""
    whole = Fingerprint(rows.collect_schema().names(), key=key)
    for batch in rows.collect_batches(chunk_size=ROWS_IN_A_BATCH, maintain_order=False):
        whole.add(batch)
    return whole.hexdigest()
