"""The asset `synthetic_bins`."""

import dagster as dg
import polars as pl

from dp_assets.artifacts import Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.selection.bins import SAMPLED_VECTORS_PER_BIN, fit_bins
from dp_assets.selection.vectors import sampled_vectors
from dp_assets.settings.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="selection", kinds={"numpy", "parquet"})
def synthetic_bins(
    profile: dg.ResourceParam[Profile],
    synthetic_embeddings: Table,
) -> AssetValue[Table]:
    """Bins (centroids) fitted on the synthetic vectors only: released, one row a bin."""
    num_bins, seed = profile.votes.num_bins, profile.selection.seed
    vectors = sampled_vectors(synthetic_embeddings.rows, most=num_bins * SAMPLED_VECTORS_PER_BIN, seed=seed)
    centroids = fit_bins(vectors, num_bins=num_bins, seed=seed)
    rows = pl.LazyFrame({"bin_id": range(len(centroids)), "centroid": pl.Series(centroids)})
    return AssetValue(Table(rows, record=synthetic_embeddings.record), {"dagster/row_count": len(centroids)})
