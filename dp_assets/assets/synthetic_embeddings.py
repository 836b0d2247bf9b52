"""The asset `synthetic_embeddings`."""

import polars as pl

from dp_assets.artifacts import EMBEDDER, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from resources.models.loaders import Embedder


@pipeline_asset(label=Label.RELEASED, group="selection", kinds={"huggingface", "parquet"})
def synthetic_embeddings(
    embedder: Embedder,
    synthetic_pool: Table,
) -> AssetValue[Table]:
    """Vectors of the synthetic pool: released, float32 of unit length, one row an instruction."""
    pool = synthetic_pool.collect()
    with progress("embedding the synthetic pool", pool.height, "texts") as advance:
        vectors = pl.Series("vector", embedder.encode(pool["text"].to_list(), advance=advance))
    rows = pool.select("synthetic_id", vectors).lazy()
    figures = {"dagster/row_count": pool.height, "embedder": embedder.public_name}
    record = {EMBEDDER: embedder.public_name, "dimension": embedder.dimension}
    return AssetValue(Table(rows, record=record), figures)
