"""The asset `real_instructions`."""

import dagster as dg

from dp_assets.artifacts import PrivateTable
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.corpus import (
    preparation_digest,
    preparation_of,
    redaction_of,
    registration_of,
    snapshot_and_erased,
    source_of,
)
from dp_assets.pipeline.overlap import tell_of_other_corpora
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.preparation import CorpusPreparation, bind
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import private_step
from resources.storage.scratch import Scratch


@pipeline_asset(label=Label.PRIVATE, group="corpus", kinds={"polars", "parquet"}, partitioned=False, code_version="7")
def real_instructions(
    context: dg.AssetExecutionContext, ledger: Ledger, profile: dg.ResourceParam[Profile]
) -> PrivateTable:
    """The cleaned, contribution-bounded corpus of the registered source: private, one row an instruction."""
    source, registration = source_of(profile), registration_of(ledger, profile)
    corpus_id, (snapshot, erased) = registration.corpus_id, snapshot_and_erased(ledger, profile)
    ledger.check_preparation(corpus_id, snapshot, preparation_digest(profile))
    preparation = CorpusPreparation(preparation_of(profile, ledger.key), erased)
    with Scratch(ledger.private_root) as scratch, private_step(ledger.private_root):
        verdict = preparation.tested(scratch.folder / "probe", cohort=registration.cohorts[0])
        prepared = preparation.run(source, scratch.folder)
        bind(ledger, prepared, corpus_id, snapshot, preparation_digest(profile))
    table = PrivateTable(
        prepared.rows,
        corpus_id=corpus_id,
        snapshot=snapshot,
        preparation=verdict,
        made_with=redaction_of(profile).versions(),
        empty_cohorts=set(registration.cohorts) - prepared.cohorts,
        held=scratch,
    )
    tell_of_other_corpora(context, ledger, corpus_id)
    return table
