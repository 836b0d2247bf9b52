"""Shards are kept for what decides their rows, and none without noise."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import adapter_from_model, new_adapter_model
from resources.storage.shards import Shards, ShardStore


@pytest.fixture
def load_model(tiny_model_folder: Path) -> Any:
    """Few different texts: half of them end at once or repeat another."""

    def load() -> Any:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
        model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
        with torch.no_grad():
            model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
            model.lm_head.bias.fill_(-100.0)
            model.lm_head.bias[[2, *range(40, 46)]] = 0.0
        return model, AutoTokenizer.from_pretrained(tiny_model_folder)

    return load


@pytest.fixture
def adapter(load_model: Any) -> Adapter:
    model = new_adapter_model(load_model()[0], rank=2, alpha=4, target_modules=["q_proj"], layers=None, seed=0)
    return adapter_from_model(model, base_model="tiny", charge_ids=["c"], record={})


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
