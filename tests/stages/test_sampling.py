"""Which engine samples: vLLM only where its settings and the zone of the generator allow it."""

import sys
from pathlib import Path

import polars as pl
import pytest

from dp_assets.settings.named import load_profile
from dp_assets.stages.sampling import generator_loading, numbered, require_engine
from resources.models.loaders import LanguageModel, ModelUnavailable
from resources.models.vllm_engine import require_usable
from tests.resources.models.fake_vllm import FakeLLM, adapter, put_in_place


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    return put_in_place(monkeypatch)


@pytest.fixture
def language_model(tiny_model_folder: Path, tmp_path: Path) -> LanguageModel:
    return LanguageModel(model=str(tiny_model_folder), device="cpu", dtype="float32", cache_root=str(tmp_path))


def test_what_is_wrong_with_vllm_is_found_before_the_generator_is_paid_for(
    fake_vllm: type[FakeLLM], language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_profile("demo").sampling.model_copy(update={"engine": "vllm"})
    require_engine(language_model, settings, level="eps-8")
    with pytest.raises(ValueError, match=r"16 bits.*'bfloat16'"):
        require_usable(dtype="float32", device="cuda")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelUnavailable, match=r"import of vllm.*sampling\.engine"):
        require_engine(language_model, settings, level="eps-8")
    require_engine(language_model, settings, level="no-dp")
    require_engine(language_model, load_profile("demo").sampling, level="eps-8")


def test_a_private_adapter_is_never_handed_to_vllm(fake_vllm: type[FakeLLM], language_model: LanguageModel) -> None:
    settings = load_profile("demo").sampling.model_copy(update={"engine": "vllm"})
    with pytest.raises(ValueError, match="do not fit the model"):  # transformers was handed it
        generator_loading(language_model, adapter(), settings, level="no-dp")()
    assert not fake_vllm.made
    generator_loading(language_model, adapter(), settings, level="eps-8")()
    assert len(fake_vllm.made) == 1


def test_without_the_setting_the_base_model_is_loaded_by_transformers(
    fake_vllm: type[FakeLLM], language_model: LanguageModel
) -> None:
    load = generator_loading(language_model, None, load_profile("demo").sampling, level="eps-8")
    assert type(load()[0]).__name__ == "LlamaForCausalLM"
    assert not fake_vllm.made


def test_the_texts_of_a_pool_are_numbered_in_their_order() -> None:
    pool = pl.LazyFrame({"text": ["b", "a"], "num_tokens": [1, 2]})
    rows = numbered(pool).collect()
    assert rows.columns == ["synthetic_id", "text", "num_tokens"]
    assert rows["synthetic_id"].to_list() == ["pool-0000000", "pool-0000001"]
    assert rows["text"].to_list() == ["b", "a"]
