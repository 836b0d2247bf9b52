"""The asset `dp_histogram`."""

import dagster as dg

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.bin_arrays import centroids_of
from dp_assets.pipeline.release_protocol import ReleaseConfig, ReleaseIdentity, obtain
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.selection.bins import digest_of
from dp_assets.selection.noisy_votes import NoisyVotes
from dp_assets.settings.profile import Profile
from dp_assets.stages.preflight import RestOfRun
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder, LanguageModel
from resources.private.private_step import private_step
from resources.storage.stores import ReleaseStore


@pipeline_asset(label=Label.MECHANISM, group="selection", kinds={"numpy", "parquet"}, code_version="3")
def dp_histogram(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    releases: ReleaseStore,
    language_model: LanguageModel,
    embedder: Embedder,
    real_embeddings: PrivateTable,
    synthetic_bins: Table,
) -> AssetValue[Table]:
    """Noisy votes of the real units for the bins, one vote a unit and one row a bin: the second spend."""
    centroids = centroids_of(synthetic_bins)
    inputs = {"embedder": profile.embedder, "bins": digest_of(centroids)}
    with private_step(ledger.private_root):
        plan = profile.plan(Partition.of(context).level)
        mechanism = NoisyVotes(
            plan, real_embeddings, synthetic_bins, centroids, inputs["bins"], embedder.public_name, ledger.key
        )
        histogram = obtain(
            mechanism,
            ReleaseIdentity.of(
                mechanism, context, ledger, profile, real_embeddings, release=config.release, inputs=inputs
            ),
            ledger=ledger,
            releases=releases,
            rest_of_run=RestOfRun(context, profile, releases.home, language_model, embedder),
        )
    figures = metadata.mechanism_metadata(plan, HISTOGRAM) | {"dagster/row_count": plan.votes.num_bins}
    return AssetValue(histogram, figures)
