"""The asset `real_instructions`."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import PrivateTable
from dp_assets.corpus.buckets import Prepared, prepare_in_buckets
from dp_assets.corpus.prepare import Preparation, drop_erased, prepare
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.sources import FileSource, Source
from dp_assets.corpus.stability import require_bounded, require_stable
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.corpus import (
    preparation_digest,
    preparation_of,
    read_source,
    redaction_of,
    registration_of,
    snapshot_and_erased,
    source_of,
)
from dp_assets.pipeline.overlap import note_overlaps, tell_of_other_corpora
from dp_assets.privacy.labels import Label
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.profile import Profile
from resources.ledger.charging import Ledger
from resources.ledger.overlap import sketch_hash
from resources.private.private_step import private_step
from resources.storage.scratch import Scratch

FEW_BUCKETS = 2  # so that many units share one


@pipeline_asset(label=Label.PRIVATE, group="corpus", kinds={"polars", "parquet"}, partitioned=False, code_version="7")
def real_instructions(
    context: dg.AssetExecutionContext, ledger: Ledger, profile: dg.ResourceParam[Profile]
) -> PrivateTable:
    """The cleaned, contribution-bounded corpus of the registered source: private, one row an instruction."""
    settings, source = profile.corpus, source_of(profile)
    registration, (snapshot, erased) = registration_of(ledger, profile), snapshot_and_erased(ledger, profile)
    key, corpus_id, preparation = ledger.key, registration.corpus_id, preparation_digest(profile)
    ledger.check_preparation(corpus_id, snapshot, preparation)
    steps = preparation_of(profile, key)

    prepare_rows = partial(_prepared, steps=steps, erased=erased, key=key)
    prepare_source = partial(_prepared_in_buckets, prepare_rows=prepare_rows, unit=settings.unit, key=key)
    with Scratch(ledger.private_root) as scratch, private_step(ledger.private_root):
        prepare_probe = partial(_prepared_from_a_file, prepare_source, folder=scratch.folder / "probe")
        treated = require_stable(prepare_rows, prepare_probe, steps, cohort=registration.cohorts[0])
        found = prepare_source(source, scratch.folder, hash_unit=partial(sketch_hash, key=key))
        require_bounded(found.rows, max_rows_per_unit=settings.max_rows_per_unit)
        _bind(ledger, found, corpus_id, snapshot, preparation)
    table = PrivateTable(
        found.rows,
        corpus_id=corpus_id,
        snapshot=snapshot,
        preparation=treated,
        made_with=redaction_of(profile).versions(),
        empty_cohorts=set(registration.cohorts) - found.cohorts,
        held=scratch,
    )
    tell_of_other_corpora(context, ledger, corpus_id)
    return table


def _prepared(rows: pl.LazyFrame, *, steps: Preparation, erased: Collection[str], key: bytes) -> pl.LazyFrame:
    return drop_erased(prepare(rows, steps), erased=erased, key=key)


def _prepared_in_buckets(source: Source, folder: Path, *, unit: PrivacyUnit, **further: Any) -> Prepared:
    return prepare_in_buckets(read_source(source, unit, folder), unit=unit, folder=folder, **further)


def _bind(ledger: Ledger, found: Prepared, corpus_id: str, snapshot: str, preparation: str) -> None:
    """Record in the ledger what was prepared, and what of it other corpora hold too."""
    hashes = {"rows": found.fingerprint, "texts": found.texts, "content": found.content}
    ledger.bind_rows(corpus_id, snapshot, preparation=preparation, **hashes)
    note_overlaps(ledger, corpus_id, found.unit_hashes)


def _prepared_from_a_file(prepare_source: Callable[..., Prepared], rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
    """What the way of a run makes of public rows that a file holds, put into `folder`, a new one."""
    folder.mkdir()
    rows.sink_parquet(folder / "source.parquet")
    source = FileSource(folder / "source.parquet", {name: name for name in SOURCE_ROWS})
    return prepare_source(source, folder, num_buckets=FEW_BUCKETS).rows
