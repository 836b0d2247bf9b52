"""The asset `privacy_statement`."""

from pathlib import Path

import dagster as dg

from dp_assets.artifacts import Adapter, Document, Table, union_of_ids
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.corpus import registration_of
from dp_assets.pipeline.release_protocol import ROWS_MADE_WITH
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.profile import Profile
from dp_assets.stages.statement import evidence_of, pictures, provenance
from dp_assets.statements.history import cohort_histories
from dp_assets.statements.statement import StatedSource, make_statement
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.storage.stores import ReleaseStore


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"json", "markdown", "html"}, code_version="3")
def privacy_statement(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    releases: ReleaseStore,
    dp_generator: Adapter,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    dp_histogram: Table,
    filtered_instructions: Table,
) -> AssetValue[Document]:
    """What is guaranteed for this release, recomputable by anyone from its events: released, as JSON and as pages."""
    releases_of: dict[str, Table | Adapter] = {GENERATOR: dp_generator, HISTOGRAM: dp_histogram}
    made_from = {
        **releases_of,
        "synthetic_pool": synthetic_pool,
        "synthetic_embeddings": synthetic_embeddings,
        "synthetic_bins": synthetic_bins,
        "filtered_instructions": filtered_instructions,
    }
    partition, ids, state = Partition.of(context), union_of_ids(*made_from.values()), ledger.state()
    corpus_id = registration_of(ledger, profile).corpus_id
    statement = make_statement(
        state,
        corpus_id,
        [profile.plan(partition.level)],
        charge_ids=ids,
        evidence=evidence_of(state, releases_of),
        base_model=dp_generator.base_model,
        source=StatedSource(
            profile.corpus.source.kind, profile.corpus.redact, dp_generator.record.get(ROWS_MADE_WITH, {})
        ),
        provenance=provenance(profile, Path(releases.home), partition, made_from),
    )
    markdown, histories = to_markdown(statement), cohort_histories(ledger.entries(), corpus_id)
    guarantee = state.guarantee(corpus_id, statement["release"]["cohorts"], without_noise=False)
    figures = {
        **metadata.statement_metadata(guarantee),
        "statement": dg.MetadataValue.md(markdown),
        **pictures(statement, histories, partition),
    }
    return AssetValue(Document(statement, markdown, html=to_html(statement)), figures)
