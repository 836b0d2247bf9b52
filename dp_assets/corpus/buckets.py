"""Prepares any number of rows in bounded memory: `prepare` runs on one bucket of units after the other.

    source rows -> (by a part of their unit's id, batch by batch) -> buckets on disk -> prepare each -> prepared rows

All rows of a unit are in one bucket, and `prepare` treats each unit independently, which `stability.py` tests in every
run. So the result equals that of all rows at once, whatever the number of buckets. Unit ids are keyed hashes, so nobody
can fill one bucket on purpose except with rows of one's own unit.

Buckets are ordered by unit id, so the prepared files, read one after the other, are in the order of `prepare`.

Memory holds a batch of source rows, or the rows of one bucket: 1/n of the corpus, plus the rows of the units with the
most. Each row also keeps 16 bytes for each fingerprint. Both copies on disk are in a folder of the private zone that
the caller passes and removes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.corpus.fingerprint import ROWS_IN_A_BATCH, Fingerprint
from dp_assets.corpus.prepare import named_as_units
from dp_assets.corpus.schemas import REAL_INSTRUCTIONS, SOURCE_ROWS
from dp_assets.privacy.units import PrivacyUnit

NUM_BUCKETS = 64
"""The number of buckets for users; as many again are for rows that are units of their own."""

CONTENT = ("unit_id", "text")
MOST_UNIT_HASHES = 2048
PrepareRows = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Prepared:
    """Prepared rows, scanned from their folder, and the fingerprints that a snapshot is bound to.

    `cohorts` are those with a training row. `unit_hashes` are the smallest hashes of unit ids, by `hash_unit`.
    """

    rows: pl.LazyFrame
    fingerprint: str
    texts: str  # the fingerprint of the source's texts
    content: str  # the fingerprint of the prepared texts with their unit ids, and of no other column
    unit_hashes: tuple[str, ...]
    cohorts: frozenset[str]


def prepare_in_buckets(
    source_rows: pl.LazyFrame,
    prepare_rows: PrepareRows,
    *,
    unit: PrivacyUnit,
    key: bytes,
    folder: Path,
    num_buckets: int = NUM_BUCKETS,
    hash_unit: Callable[[str], str] = str,
) -> Prepared:
    """Return the result of `prepare_rows` on all `source_rows`, written to `folder`.

    Args:
      source_rows: rows with the columns of `SOURCE_ROWS`.
      prepare_rows: must treat units independently and sort its rows by unit, as `prepare` does for this `unit` and
        `key`.
      unit: the privacy unit.
      key: the private zone's key.
      folder: an empty folder of the private zone.
      num_buckets: how many buckets users get, and as many again rows that are units of their own.
      hash_unit: the hash of a unit's id that `unit_hashes` are made of.
    """
    buckets, prepared = folder / "buckets", folder / "prepared"
    spread(named_as_units(source_rows, unit=unit, key=key), buckets, num_buckets)
    prepared.mkdir()
    cohorts: set[str] = set()
    unit_hashes: list[str] = []
    hashed, texts = Fingerprint(REAL_INSTRUCTIONS.names(), key=key), Fingerprint(["text"], key=key)
    content = Fingerprint(CONTENT, key=key)
    for number, source in enumerate(contents(buckets)):
        texts.add(source.select("text"))
        rows = prepare_rows(source.lazy()).collect()
        hashed.add(rows)
        content.add(rows.select(CONTENT))
        unit_hashes = nsmallest(MOST_UNIT_HASHES, {*unit_hashes, *map(hash_unit, rows["unit_id"].unique())})
        cohorts |= set(rows.filter(pl.col("split") == TRAIN_SPLIT)["cohort"])
        rows.write_parquet(prepared / f"{number:05d}.parquet")
    rows_of_all = pl.scan_parquet(prepared / "*.parquet")
    return Prepared(
        rows_of_all,
        hashed.hexdigest(),
        texts.hexdigest(),
        content.hexdigest(),
        tuple(unit_hashes),
        frozenset(cohorts),
    )


def bucket_of_unit(num_buckets: int) -> pl.Expr:
    """Return the bucket of each `unit_id`, from 0 to 2 `num_buckets` - 1, in the order of the ids (users come last)."""
    digits = pl.col("unit_id").str.tail(32).str.head(8).str.to_integer(base=16, dtype=pl.Int64)
    within = digits * num_buckets // 2**32
    return within + pl.col("unit_id").str.starts_with("user:").cast(pl.Int64) * num_buckets


def spread(named: pl.LazyFrame, folder: Path, num_buckets: int) -> None:
    """Write each batch of rows to the folders of its buckets, one file a bucket.

    Polars' own partitioned sinks are not used: they hold much of every partition in memory until the end.
    """
    for number in range(2 * num_buckets):
        (folder / f"{number:05d}").mkdir(parents=True)
        # So that a bucket without rows has columns too.
        pl.DataFrame(schema=SOURCE_ROWS).write_parquet(folder / f"{number:05d}" / "none.parquet")
    placed = named.with_columns(bucket=bucket_of_unit(num_buckets)).select("bucket", *SOURCE_ROWS.names())
    batches = placed.collect_batches(chunk_size=ROWS_IN_A_BATCH, maintain_order=False)
    for batch_number, batch in enumerate(batches):
        pieces = batch.partition_by("bucket", as_dict=True, include_key=False)
        for (bucket,), piece in pieces.items():
            piece.write_parquet(folder / f"{bucket:05d}" / f"{batch_number:09d}.parquet")


def contents(folder: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of each bucket in turn."""
    for bucket in sorted(folder.iterdir()):
        yield pl.read_parquet(bucket / "*.parquet")
