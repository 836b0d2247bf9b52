"""The asset `restricted_report`."""

from functools import partial

import dagster as dg

from dp_assets.artifacts import Adapter, PrivateTable, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.bin_arrays import centroids_of
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.reports import SyntheticRows, restricted_metadata, restricted_rows
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import LanguageModel
from resources.private.private_step import private_step


@pipeline_asset(
    label=Label.PRIVATE,
    group="reports",
    kinds={"numpy", "parquet"},
    code_version="2",
    of_public_rows=restricted_metadata,
)
def restricted_report(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    real_instructions: PrivateTable,
    real_embeddings: PrivateTable,
    dp_generator: Adapter,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    filtered_instructions: Table,
) -> PrivateTable:
    """Utility against exact real rows, private, one row a figure; shown only where the source is public."""
    with private_step(ledger.private_root):
        return real_embeddings.map(
            partial(
                restricted_rows,
                Partition.of(context).cohort,
                synthetic=SyntheticRows(
                    pool=synthetic_pool.rows.join(synthetic_embeddings.rows, on="synthetic_id").collect(),
                    filtered=filtered_instructions.collect(),
                    centroids=centroids_of(synthetic_bins),
                ),
                load_model=language_model.load,
                adapter=dp_generator,
                generator=profile.generator,
                report=profile.report,
            ),
            real_instructions,
        )
