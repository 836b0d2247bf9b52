"""Shards are kept for what decides their rows, and none without noise."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import Adapter
from resources.storage.shards import Shards, ShardStore
from tests.generation.few_texts import loading_few_texts, untrained_adapter


@pytest.fixture
def load_model(tiny_model_folder: Path) -> Any:
    return loading_few_texts(tiny_model_folder)


@pytest.fixture
def adapter(load_model: Any) -> Adapter:
    return untrained_adapter(load_model)


def test_shards_of_another_adapter_or_other_settings_are_neither_used_nor_kept(
    adapter: Adapter, tmp_path: Path
) -> None:
    store = ShardStore(home=str(tmp_path))
    other = Adapter({**adapter.weights, next(iter(adapter.weights)): next(iter(adapter.weights.values())) + 1},
                    adapter.config, adapter.base_model, adapter.charge_ids)  # fmt: skip
    rows = pl.DataFrame({"text": ["a"]})

    def opened(adapter: Adapter, **decided_by: Any) -> Shards:
        return store.open("synthetic_pool", "all|eps-8", adapter=adapter, decided_by=decided_by)

    opened(adapter, seed=1).kept("first", rows)
    assert opened(adapter, seed=1).found("first") is not None
    for change in (lambda: opened(adapter, seed=2), lambda: opened(other, seed=1)):
        opened(adapter, seed=1).kept("first", rows)
        assert change().found("first") is None
        assert opened(adapter, seed=1).found("first") is None


def test_without_noise_no_shard_is_written(adapter: Adapter, tmp_path: Path) -> None:
    shards = ShardStore(home=str(tmp_path)).open("synthetic_pool", "all|no-dp", adapter=adapter, decided_by={})
    kept = shards.kept("first", pl.DataFrame({"text": ["a"]}))
    assert kept.collect()["text"].to_list() == ["a"]
    assert list(tmp_path.rglob("*")) == []
