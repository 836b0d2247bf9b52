"""Sampling from the generator: the engine, the shards of the pool and the ids of its rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import Adapter
from dp_assets.generation.settings import SamplingSettings
from dp_assets.privacy.labels import Label, Zone, zone
from resources.models.loaders import LanguageModel
from resources.storage.shards import Shards, ShardStore


def generator_loading(
    language_model: LanguageModel, adapter: Adapter | None, settings: SamplingSettings, *, level: str
) -> Callable[[], tuple[Any, Any]]:
    """Return a function that loads the model from which texts are sampled: the base model, with `adapter` if given.

    It loads the model in the engine of the settings, except at the level without noise. There the adapter is private,
    and vLLM would need it in a folder outside the private zone.
    """
    from dp_assets.generation.drawing import with_adapter

    if _in_vllm(settings, level):
        return partial(language_model.load_in_vllm, adapter, texts_in_flight=settings.batch_size)
    return language_model.load if adapter is None else with_adapter(language_model.load, adapter)


def require_engine(language_model: LanguageModel, settings: SamplingSettings, *, level: str) -> None:
    """Require that the engine can be used, before the generator is charged for.

    Raises:
      ModelUnavailable: it cannot.
    """
    if _in_vllm(settings, level):
        language_model.require_vllm()


def pool_shards(
    context: dg.AssetExecutionContext,
    store: ShardStore,
    generator: Adapter,
    language_model: LanguageModel,
    settings: SamplingSettings,
) -> Shards:
    """Open the shards of the pool that this partition has sampled so far.

    Shards are keyed by everything that decides a sample: the generator, the sampling settings except the number of
    samples, and the base model.

    Args:
      context: the context of the asset that runs.
      store: the store of shards.
      generator: the adapter of the generator.
      language_model: the base model.
      settings: the sampling settings.
    """
    decided_by = {
        "sampling": settings.model_dump(exclude={"num_samples"}),
        "model": language_model.model_dump(exclude={"cache_root"}),
    }
    asset = context.asset_key.to_user_string()
    return store.open(asset, context.partition_key, adapter=generator, decided_by=decided_by)


def numbered(pool: pl.LazyFrame) -> pl.LazyFrame:
    """Return the texts of a pool with an id each, numbered in their order."""
    number = pl.col("number").cast(pl.String).str.zfill(7)
    synthetic_id = pl.format("pool-{}", number).alias("synthetic_id")
    return pool.with_row_index("number").select(synthetic_id, "text", "num_tokens")


def _in_vllm(settings: SamplingSettings, level: str) -> bool:
    return settings.engine == "vllm" and zone(Label.RELEASED, level) is Zone.RELEASED
