"""The asset `real_instructions`."""

import dagster as dg
import polars as pl

from dp_assets.artifacts import PrivateTable
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._corpus import preparation_digest, registration_of, snapshot_and_erased, source_of
from dp_assets.assets._release import private_result
from dp_assets.corpus.cohorts import CohortError, cohort_expr
from dp_assets.corpus.fingerprint import fingerprint
from dp_assets.corpus.prepare import drop_erased, prepare
from dp_assets.corpus.sources import SourceError
from dp_assets.corpus.stability import UnstablePreparation, require_stable
from dp_assets.privacy.labels import Label
from resources.ledger import Ledger
from resources.private_step import private_step
from resources.profile import Profile

BOUNDS = {"unit", "max_rows_per_unit", "min_words", "max_words", "max_characters", "languages"}


@pipeline_asset(label=Label.PRIVATE, group="corpus", kinds={"polars", "parquet"}, partitioned=False, code_version="2")
def real_instructions(
    context: dg.AssetExecutionContext, ledger: Ledger, profile: dg.ResourceParam[Profile]
) -> dg.MaterializeResult[PrivateTable]:
    """The cleaned, contribution-bounded corpus of the registered source: private, one row an instruction."""
    settings, source = profile.corpus, source_of(profile)
    registration, (snapshot, erased) = registration_of(ledger, profile), snapshot_and_erased(ledger, profile)
    bounds, key = settings.model_dump(include=BOUNDS), ledger.key
    corpus_id, preparation = registration.corpus_id, preparation_digest(profile)
    ledger.check_preparation(corpus_id, snapshot, preparation)

    def prepare_rows(rows: pl.LazyFrame) -> pl.LazyFrame:
        cohort_of = cohort_expr(unit=settings.unit, **settings.cohorts.model_dump())
        prepared = prepare(rows, key=key, cohort_of=cohort_of, train_fraction=settings.train_fraction, **bounds)
        return drop_erased(prepared, erased=erased, key=key)

    with private_step(ledger.private_root, SourceError, CohortError, UnstablePreparation):
        treated = require_stable(prepare_rows, cohort=registration.cohorts[0], **bounds)
        rows = prepare_rows(source.scan()).collect()
        texts = fingerprint(source.scan().select("text"), key=key)
        hashed = fingerprint(rows.lazy(), key=key)
        ledger.bind_rows(corpus_id, snapshot, rows=hashed, texts=texts, preparation=preparation)
    table = PrivateTable(rows.lazy(), corpus_id=corpus_id, snapshot=snapshot, preparation=treated)
    return private_result(context, table, ledger=ledger, profile=profile)
