"""The asset `synthetic_pool`."""

import dagster as dg
import polars as pl
from pydantic import Field

from dp_assets.artifacts import Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.sampling import generator_loading
from dp_assets.vocabulary import Partition
from resources.models.loaders import LanguageModel
from resources.storage.shards import ShardStore


class SyntheticPoolConfig(dg.Config):
    """A larger pool refits the bins only where `synthetic_bins` is materialized again."""

    num_samples: int | None = Field(default=None, gt=0)


@pipeline_asset(label=Label.RELEASED, group="generation", kinds={"huggingface", "parquet"}, code_version="2")
def synthetic_pool(
    context: dg.AssetExecutionContext,
    config: SyntheticPoolConfig,
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    shard_store: ShardStore,
    dp_generator: Adapter,
) -> AssetValue[Table]:
    """Distinct instructions sampled from the generator: released, one row an instruction."""
    from dp_assets.generation.drawing import sample_pool

    num_samples = config.num_samples or profile.sampling.num_samples
    drawn_by = profile.sampling.model_dump(exclude={"num_samples"})
    decided_by = {"sampling": drawn_by, "model": language_model.model_dump(exclude={"cache_root"})}
    shards = shard_store.open("synthetic_pool", context.partition_key, adapter=dp_generator, decided_by=decided_by)
    level = Partition.of(context).level
    load = generator_loading(language_model, dp_generator, profile.sampling, level=level)
    pool = sample_pool(load, profile.sampling.resized(num_samples, seed=profile.sampling.seed), shards=shards)
    number = pl.col("number").cast(pl.String).str.zfill(7)
    numbered = pl.format("pool-{}", number).alias("synthetic_id")
    rows = pool.with_row_index("number").select(numbered, "text", "num_tokens")
    figures = {"dagster/row_count": pool.select(pl.len()).collect().item(), "samples_drawn": num_samples}
    return AssetValue(Table(rows), figures)
