"""The asset `dp_histogram`."""

from functools import partial

import dagster as dg

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import result
from dp_assets.pipeline.bin_arrays import centroids_of
from dp_assets.pipeline.release_protocol import Mechanism, ReleaseConfig, obtain
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import check_votes
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.selection.bins import digest_of
from dp_assets.selection.release import release_votes, require_same_embedder
from dp_assets.settings.profile import Profile
from dp_assets.stages.preflight import check_rest_of_run
from resources.ledger.charging import Ledger
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
) -> dg.MaterializeResult[Table]:
    """Noisy votes of the real units for the bins, one vote a unit and one row a bin: the second spend."""
    centroids = centroids_of(synthetic_bins)
    inputs = {"embedder": profile.embedder, "bins": digest_of(centroids)}
    with private_step(ledger.private_root):
        mechanism = Mechanism.of(context, ledger, profile, real_embeddings, release=config.release, inputs=inputs)
        votes = mechanism.plan.votes
        histogram = obtain(
            mechanism,
            ledger=ledger,
            releases=releases,
            run=partial(
                release_votes,
                table=real_embeddings,
                centroids=centroids,
                bins=inputs["bins"],
                noise_stddev=votes.noise_stddev,
                key=ledger.key,
                upstream_ids=synthetic_bins.charge_ids,
            ),
            ready=(
                partial(require_same_embedder, real_embeddings, synthetic_bins, embedder.public_name),
                partial(check_rest_of_run, context, profile, releases.home, language_model, embedder),
            ),
            check=partial(check_votes, votes, mechanism.plan.unit),
        )
    extra = metadata.mechanism_metadata(mechanism.plan, HISTOGRAM) | {"dagster/row_count": votes.num_bins}
    return result(context, histogram, ledger=ledger, profile=profile, extra=extra)
