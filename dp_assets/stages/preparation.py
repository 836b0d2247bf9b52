"""Preparation of a corpus's source. The steps are first tested on public rows, on the same path.

source -> rows that are understood -> buckets of units -> prepared rows without erased units
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from dp_assets.corpus.buckets import NUM_BUCKETS, Prepared, prepare_in_buckets
from dp_assets.corpus.prepare import Preparation, drop_erased, prepare
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.sources import FileSource, Source
from dp_assets.corpus.stability import require_bounded, require_stable
from dp_assets.pipeline.corpus import read_source
from dp_assets.pipeline.overlap import note_overlaps
from resources.ledger.ledger_resource import Ledger
from resources.ledger.overlap import sketch_hash

FEW_BUCKETS = 2  # few, so that many units share a bucket


@dataclass(frozen=True)
class CorpusPreparation:
    """The steps of a corpus, and the hashes of the units that were erased from it."""

    steps: Preparation
    erased: Collection[str]

    def prepared_rows(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the prepared rows of the units that were not erased."""
        return drop_erased(prepare(rows, self.steps), erased=self.erased, key=self.steps.key)

    def tested(self, folder: Path, *, cohort: str) -> str:
        """Test the steps with public rows on the path of a run, and return the verdict.

        Args:
          folder: a folder of the private zone that does not exist yet.
          cohort: the name of one of the cohorts.

        Raises:
          UnstablePreparation: units were not treated independently.
        """
        return require_stable(
            self.prepared_rows, partial(self._rows_of_a_file, folder=folder), self.steps, cohort=cohort
        )

    def run(self, source: Source, folder: Path) -> Prepared:
        """Return the prepared rows of a source, stored in `folder`, with hashes of their units.

        Raises:
          SourceError: the source cannot be read as configured.
          BoundExceeded: a unit has more rows than the contribution bound.
        """
        hash_unit = partial(sketch_hash, key=self.steps.key)
        prepared = self._in_buckets(source, folder, num_buckets=NUM_BUCKETS, hash_unit=hash_unit)
        require_bounded(prepared.rows, max_rows_per_unit=self.steps.max_rows_per_unit)
        return prepared

    def _rows_of_a_file(self, rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
        """Write public rows to a file and return what the path of a run prepares from it."""
        folder.mkdir()
        rows.sink_parquet(folder / "source.parquet")
        source = FileSource(folder / "source.parquet", {name: name for name in SOURCE_ROWS})
        return self._in_buckets(source, folder, num_buckets=FEW_BUCKETS, hash_unit=str).rows

    def _in_buckets(
        self, source: Source, folder: Path, *, num_buckets: int, hash_unit: Callable[[str], str]
    ) -> Prepared:
        steps = self.steps
        return prepare_in_buckets(
            read_source(source, steps.unit, folder),
            self.prepared_rows,
            unit=steps.unit,
            key=steps.key,
            folder=folder,
            num_buckets=num_buckets,
            hash_unit=hash_unit,
        )


def bind(ledger: Ledger, prepared: Prepared, corpus_id: str, snapshot: str, preparation: str) -> None:
    """Bind the prepared rows to their snapshot in the ledger, and store the sketch of their units.

    Args:
      ledger: the ledger.
      prepared: the prepared rows with their fingerprints and the hashes of their units.
      corpus_id: the id of the corpus.
      snapshot: the name of the snapshot.
      preparation: the digest of the settings that shaped the rows.
    """
    hashes = {"rows": prepared.fingerprint, "texts": prepared.texts, "content": prepared.content}
    ledger.bind_rows(corpus_id, snapshot, preparation=preparation, **hashes)
    note_overlaps(ledger, corpus_id, prepared.unit_hashes)
