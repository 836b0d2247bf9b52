"""The asset `filtered_instructions`."""

from pathlib import Path

import dagster as dg
import polars as pl

from dp_assets.artifacts import SHORTAGE, Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.bin_arrays import centroids_of, histogram_of
from dp_assets.privacy.labels import Label
from dp_assets.selection.filtering import filter_pool
from dp_assets.selection.vectors import assigned, vectors_of
from dp_assets.settings.profile import Profile
from dp_assets.stages.top_up import kept_draws
from resources.models.loaders import Embedder, LanguageModel
from resources.storage.stores import ReleaseStore


@pipeline_asset(label=Label.RELEASED, group="selection", kinds={"polars", "parquet"}, code_version="2")
def filtered_instructions(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    releases: ReleaseStore,
    language_model: LanguageModel,
    embedder: Embedder,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    dp_histogram: Table,
    dp_generator: Adapter,
) -> AssetValue[Table]:
    """The pool resampled to the noisy votes, short bins topped up by the generator: released, of exact size."""
    centroids = centroids_of(synthetic_bins)
    bins = assigned(synthetic_embeddings.rows, centroids)
    pool = bins.join(synthetic_pool.collect(), on="synthetic_id", maintain_order="left")
    with kept_draws(context, Path(releases.home), language_model, dp_generator, profile) as draw:
        filtered = filter_pool(
            pool.with_columns(origin=pl.lit("pool")),
            histogram_of(dp_histogram),
            profile.selection,
            vectors=vectors_of(synthetic_embeddings.rows),
            centroids=centroids,
            draw=draw,
            embed=embedder.encode,
        )
    record = {SHORTAGE: filtered.figures["shortage_after_top_up"]}
    return AssetValue(Table(filtered.rows.lazy(), record=record), filtered.figures)
