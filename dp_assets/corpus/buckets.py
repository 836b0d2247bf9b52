"""Preparation of any number of rows in the memory of a few: `prepare`, one bucket of units after the other.

    source rows -> (by a part of their unit's id, batch by batch) -> buckets on disk -> prepare each -> prepared rows

A unit's rows all lie in one bucket, and `prepare` treats each unit apart from all others, which `stability.py` puts to
the test in every run. So what comes of the buckets is what would come of all rows at once, whatever the number of
buckets. A unit's id is a keyed hash, so that nobody can fill one bucket on purpose, but with rows of their own.

Ids are sorted as the buckets are, so the prepared files, read one after the other, are sorted as `prepare` sorts.

What is held at a time is a batch of source rows or the rows of one bucket: the n-th part of the corpus and the rows of
its busiest units, among which duplicates are sought. Of every row 32 bytes are kept for the fingerprints. Both copies
on disk lie in a folder of the private zone that the caller hands over and removes.
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
"""Of users and as many of rows that are units of their own."""

CONTENT = ("unit_id", "text")
MOST_UNIT_HASHES = 2048
PrepareRows = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Prepared:
    """Prepared rows, scanned from the folder they were put in, and the fingerprints that a snapshot is bound to.

    `cohorts` are those with a row to train on, `unit_hashes` the smallest of what `hash_unit` makes of the units' ids.
    """

    rows: pl.LazyFrame
    fingerprint: str
    texts: str  # the fingerprint of the source's texts
    content: str  # the fingerprint of the prepared texts and whose they are, whatever else is said of them
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
    """What `prepare_rows` makes of all `source_rows`, which is put into `folder`, an empty one of the private zone.

    `prepare_rows` must treat units apart and sort its rows by unit, as `prepare` does for this `unit` and `key`.
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
    """The bucket of each `unit_id`, 0 to 2 `num_buckets` - 1, in the order of the ids: those of users come last."""
    digits = pl.col("unit_id").str.tail(32).str.head(8).str.to_integer(base=16, dtype=pl.Int64)
    within = digits * num_buckets // 2**32
    return within + pl.col("unit_id").str.starts_with("user:").cast(pl.Int64) * num_buckets


def spread(named: pl.LazyFrame, folder: Path, num_buckets: int) -> None:
    """Put each batch of rows down in as many pieces as it has buckets, each in the folder of its bucket.

    The sinks of Polars that split by a key hold much of every piece until its end.
    """
    for number in range(2 * num_buckets):
        (folder / f"{number:05d}").mkdir(parents=True)
        # A bucket without rows has columns too.
        pl.DataFrame(schema=SOURCE_ROWS).write_parquet(folder / f"{number:05d}" / "none.parquet")
    placed = named.with_columns(bucket=bucket_of_unit(num_buckets)).select("bucket", *SOURCE_ROWS.names())
    batches = placed.collect_batches(chunk_size=ROWS_IN_A_BATCH, maintain_order=False)
    for batch_number, batch in enumerate(batches):
        pieces = batch.partition_by("bucket", as_dict=True, include_key=False)
        for (bucket,), piece in pieces.items():
            piece.write_parquet(folder / f"{bucket:05d}" / f"{batch_number:09d}.parquet")


def contents(folder: Path) -> Iterator[pl.DataFrame]:
    """The rows of each bucket in turn."""
    for bucket in sorted(folder.iterdir()):
        yield pl.read_parquet(bucket / "*.parquet")
