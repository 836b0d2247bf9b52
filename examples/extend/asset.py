"""An asset: how long the filtered instructions are, as a released table and two figures."""

import polars as pl

from dp_assets.artifacts import Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label

COLUMNS = pl.Schema({"synthetic_id": pl.String(), "num_words": pl.Int64()})


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"polars", "parquet"}, columns=COLUMNS)
def instruction_lengths(filtered_instructions: Table) -> AssetValue[Table]:
    """Words of each filtered instruction: released, one row an instruction."""
    num_words = pl.col("text").str.count_matches(r"\S+").cast(pl.Int64).alias("num_words")
    lengths = filtered_instructions.rows.select("synthetic_id", num_words).collect()
    figures = {"dagster/row_count": lengths.height, "mean_words": lengths["num_words"].mean()}
    return AssetValue(Table(lengths.lazy()), figures)
