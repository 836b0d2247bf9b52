"""A pool that is drawn in shards is the same whether or not it was interrupted, and distinct over all of them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import Adapter
from dp_assets.generation import drawing
from dp_assets.generation.drawing import generator_sampler, sample_pool, with_adapter
from dp_assets.generation.settings import SamplingSettings
from resources.storage.shards import Shards
from tests.generation.few_texts import loading_few_texts, untrained_adapter

SAMPLING = SamplingSettings(
    prompt="user_turn", num_samples=90, max_new_tokens=3, temperature=1.0, top_p=0.95, batch_size=8, seed=1
)


class Interrupted(Exception):
    """The run was stopped."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SAMPLES_A_SHARD", 20)


@pytest.fixture
def load_model(tiny_model_folder: Path) -> Any:
    return loading_few_texts(tiny_model_folder)


@pytest.fixture
def adapter(load_model: Any) -> Adapter:
    return untrained_adapter(load_model)


def drawn(load_model: Any, adapter: Adapter, shards: Any, **changes: Any) -> pl.DataFrame:
    load = with_adapter(load_model, adapter)
    return sample_pool(load, SAMPLING.model_copy(update=changes), shards=shards).collect()


def test_a_pool_is_distinct_over_all_shards(load_model: Any, adapter: Adapter) -> None:
    pool = drawn(load_model, adapter, Shards(None))
    sampler = generator_sampler(with_adapter(load_model, adapter), SAMPLING)
    assert 5 < pool.height < 80
    assert pool["text"].n_unique() == pool.height
    assert set(pool["text"]) == set(sampler([((), "")] * 90, SAMPLING.seed)) - {""}


def test_a_pool_that_was_interrupted_is_the_one_that_was_not(
    load_model: Any, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(load_model, adapter, Shards(tmp_path / "whole"))
    sample, calls = drawing.sample_instructions, list[int]()

    def watched(*args: Any, first_number: int, **kwargs: Any) -> pl.DataFrame:
        if first_number == 40 and 40 not in calls:
            calls.append(first_number)
            raise Interrupted
        calls.append(first_number)
        return sample(*args, first_number=first_number, **kwargs)

    monkeypatch.setattr(drawing, "sample_instructions", watched)
    with pytest.raises(Interrupted):
        drawn(load_model, adapter, Shards(tmp_path / "stopped"))
    assert drawn(load_model, adapter, Shards(tmp_path / "stopped")).equals(whole)
    assert calls == [0, 20, 40, 40, 60, 80]


def test_a_finished_pool_is_taken_without_loading_the_model(load_model: Any, adapter: Adapter, tmp_path: Path) -> None:
    pool = drawn(load_model, adapter, Shards(tmp_path))

    def refuse() -> Any:
        raise AssertionError("the model was loaded")

    assert drawn(refuse, adapter, Shards(tmp_path)).equals(pool)
    larger = drawn(load_model, adapter, Shards(tmp_path), num_samples=120)
    assert larger.head(drawn(refuse, adapter, Shards(tmp_path), num_samples=80).height).equals(
        drawn(refuse, adapter, Shards(tmp_path), num_samples=80)
    )
