"""The asset `real_instructions`."""

import dagster as dg

from dp_assets.artifacts import PrivateTable
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._corpus import registration_of, source_of
from dp_assets.assets._release import private_result
from dp_assets.corpus.cohorts import CohortError, cohort_expr
from dp_assets.corpus.fingerprint import fingerprint
from dp_assets.corpus.prepare import prepare
from dp_assets.corpus.sources import SourceError
from dp_assets.privacy.labels import Label
from dp_assets.privacy.registration import RegistrationError
from resources.ledger import Ledger
from resources.private_log import private_errors
from resources.profile import Profile


@pipeline_asset(label=Label.PRIVATE, group="corpus", kinds={"polars", "parquet"}, partitioned=False)
def real_instructions(ledger: Ledger, profile: dg.ResourceParam[Profile]) -> dg.MaterializeResult[PrivateTable]:
    """The cleaned, contribution-bounded corpus of the registered source: private, one row an instruction."""
    settings, source = profile.corpus, source_of(profile)
    registration = registration_of(ledger, profile)
    with private_errors(ledger.private_root, SourceError, CohortError, RegistrationError):
        rows = prepare(
            source.scan(),
            unit=settings.unit,
            key=ledger.key,
            max_rows_per_unit=settings.max_rows_per_unit,
            min_words=settings.min_words,
            max_words=settings.max_words,
            max_characters=settings.max_characters,
            languages=settings.languages,
            cohort_of=cohort_expr(unit=settings.unit, **settings.cohorts.model_dump()),
            train_fraction=settings.train_fraction,
        ).collect()
        texts = fingerprint(source.scan().select("text"), key=ledger.key)
        ledger.bind_rows(
            registration.corpus_id, settings.snapshot, rows=fingerprint(rows.lazy(), key=ledger.key), texts=texts
        )
    table = PrivateTable(rows.lazy(), corpus_id=registration.corpus_id, snapshot=settings.snapshot)
    return private_result(table, ledger=ledger, profile=profile)
