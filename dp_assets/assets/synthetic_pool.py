"""The asset `synthetic_pool`."""

import dagster as dg
import polars as pl
from pydantic import Field

from dp_assets.artifacts import Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.sampling import generator_loading, numbered, pool_shards
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
    shards = pool_shards(context, shard_store, dp_generator, language_model, profile.sampling)
    level = Partition.of(context).level
    load = generator_loading(language_model, dp_generator, profile.sampling, level=level)
    pool = sample_pool(load, profile.sampling.resized(num_samples, seed=profile.sampling.seed), shards=shards)
    figures = {"dagster/row_count": pool.select(pl.len()).collect().item(), "samples_drawn": num_samples}
    return AssetValue(Table(numbered(pool)), figures)
