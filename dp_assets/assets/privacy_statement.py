"""The asset `privacy_statement`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Document, Table, union_of_ids
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._corpus import registration_of
from dp_assets.assets._release import result
from dp_assets.partitions import Partition
from dp_assets.privacy.labels import Label
from dp_assets.privacy.statement import make_statement, to_markdown
from resources.ledger import Ledger
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"json", "markdown"})
def privacy_statement(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    dp_generator: Adapter,
    dp_histogram: Table,
    filtered_instructions: Table,
) -> dg.MaterializeResult[Document]:
    """What is guaranteed for this release, recomputable by anyone from its events: released, JSON and Markdown."""
    partition = Partition.of(context)
    ids = union_of_ids(dp_generator, dp_histogram, filtered_instructions)
    statement = make_statement(
        ledger.state(),
        registration_of(ledger, profile),
        profile.plan(partition.level),
        cohort=partition.cohort,
        charge_ids=ids,
        base_model=dp_generator.base_model,
        evidence=dp_generator.record["evidence"],
        source_kind=profile.corpus.source.kind,
    )
    markdown = to_markdown(statement)
    return result(
        context,
        Document(statement, markdown, ids),
        ledger=ledger,
        profile=profile,
        extra={"statement": dg.MetadataValue.md(markdown)},
    )
