"""What vLLM is asked for, and that its texts come back as those of transformers would. A fake stands for vLLM, which
few machines have; where it is installed, the real one writes what transformers writes."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import adapter_from_model, new_adapter_model
from dp_assets.generation.decoding import Decoding
from dp_assets.generation.drawing import generator_sampler, sample_pool, with_adapter
from dp_assets.generation.prompts import generator_prompt_ids
from dp_assets.generation.sampling import sample_continuations
from dp_assets.generation.settings import SamplingParameters, SamplingSettings
from dp_assets.progress import silent
from resources.models.loaders import LanguageModel, ModelUnavailable
from resources.storage.shards import Shards
from tests.resources.models.fake_vllm import FakeLLM, adapter, put_in_place

DECODING = Decoding(max_new_tokens=5, temperature=0.7, top_p=0.9, stop_ids=frozenset({2, 1}), seed=4)


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    return put_in_place(monkeypatch)


@pytest.fixture
def language_model(tiny_model_folder: Path, tmp_path: Path) -> LanguageModel:
    return LanguageModel(model=str(tiny_model_folder), device="cpu", dtype="float32", cache_root=str(tmp_path))


def continued(model: Any, prompts: list[list[int]], *, first_number: int = 0) -> list[list[int]]:
    return model.continue_texts(prompts, DECODING, batch_size=8, first_number=first_number, advance=lambda _: None)


def test_vllm_serves_the_base_model_and_the_adapter_as_it_is_released(
    fake_vllm: type[FakeLLM], language_model: LanguageModel
) -> None:
    model, _ = language_model.load_in_vllm(adapter(rank=9), texts_in_flight=8)
    continued(model, [[1, 5]])
    (engine,) = fake_vllm.made
    assert engine.settings["model"] == language_model.model
    assert (engine.settings["dtype"], engine.settings["max_num_seqs"]) == ("float32", 8)
    assert (engine.settings["enable_lora"], engine.settings["max_lora_rank"]) == (True, 16)
    assert engine.adapter is not None
    assert engine.adapter.charge_ids == ("charge",)
    np.testing.assert_array_equal(*(next(iter(each.weights.values())) for each in (engine.adapter, adapter(rank=9))))


def test_tokens_are_chosen_as_the_settings_say_and_not_as_the_model_likes(
    fake_vllm: type[FakeLLM], language_model: LanguageModel
) -> None:
    model, _ = language_model.load_in_vllm(None, texts_in_flight=8)
    texts = continued(model, [[1, 5], [1]])
    (engine,) = fake_vllm.made
    (call,) = engine.calls
    assert call.prompts == [{"prompt_token_ids": [1, 5]}, {"prompt_token_ids": [1]}]
    parameters = vars(call.parameters[0])
    assert parameters | {"seed": 0} == {
        "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "stop_token_ids": [1, 2], "seed": 0, "detokenize": False,
    }  # fmt: skip
    assert engine.settings["generation_config"] == "vllm"
    assert "enable_lora" not in engine.settings
    assert all(text[-1] == 2 for text in texts)


def test_a_text_has_the_same_random_numbers_in_whatever_company(
    fake_vllm: type[FakeLLM], language_model: LanguageModel
) -> None:
    model, _ = language_model.load_in_vllm(adapter(), texts_in_flight=8)
    together = continued(model, [[1]] * 6)
    apart = continued(model, [[1]] * 2) + continued(model, [[1]] * 4, first_number=2)
    assert together == apart
    assert len({tuple(text) for text in together}) == 6


def test_the_pool_and_steered_samples_are_drawn_by_vllm(
    fake_vllm: type[FakeLLM], language_model: LanguageModel
) -> None:
    def load() -> Any:
        return language_model.load_in_vllm(adapter(), texts_in_flight=8)

    settings = SamplingSettings(
        prompt="user_turn", num_samples=12, max_new_tokens=4, temperature=1.0, top_p=0.95, batch_size=8, seed=3
    )
    pool = sample_pool(load, settings, shards=Shards(None)).collect()
    assert pool.height == 12
    assert set(pool["num_tokens"]) == {3}
    texts = generator_sampler(load, settings)([(["an earlier text"], ""), ((), "an opening")], 3)
    assert len(texts) == 2
    tokenizer = AutoTokenizer.from_pretrained(language_model.model)
    shown, opened = (call["prompt_token_ids"] for call in fake_vllm.made[-1].calls[0].prompts)
    assert tokenizer.encode("an earlier text", add_special_tokens=False)[0] in shown
    assert tokenizer.encode("an opening", add_special_tokens=False)[0] in opened


def test_vllm_reports_nothing_to_its_makers(
    fake_vllm: type[FakeLLM], language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    language_model.load_in_vllm(None, texts_in_flight=8)
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


def test_what_vllm_cannot_serve_is_refused_with_the_setting(
    fake_vllm: type[FakeLLM], language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailable, match=r"rank is 600.*sampling\.engine"):
        language_model.load_in_vllm(adapter(rank=600), texts_in_flight=8)
    monkeypatch.setattr(fake_vllm, "refusal", RuntimeError("no memory is left"))
    with pytest.raises(ModelUnavailable, match=r"no memory is left; .*set sampling\.engine"):
        language_model.load_in_vllm(adapter(), texts_in_flight=8)


@pytest.mark.slow
@pytest.mark.packaged
@pytest.mark.skipif(find_spec("vllm") is None, reason="needs the extra vllm")
def test_the_real_vllm_writes_greedily_what_transformers_writes(tmp_path: Path) -> None:
    language_model = LanguageModel(dtype="float32", cache_root=str(tmp_path))
    released = changed_adapter(language_model)
    served, tokenizer = language_model.load_in_vllm(released, texts_in_flight=8)
    folded, _ = with_adapter(language_model.load, released)()
    prompts = [
        [*generator_prompt_ids(tokenizer, prompt="user_turn"), *tokenizer.encode(opening, add_special_tokens=False)]
        for opening in ("what", "do you", "i like", "have you ever", "where do", "can you tell")
    ]
    greedy = SamplingParameters(max_new_tokens=12, temperature=0.0, top_p=1.0, seed=0)
    texts, others, without = (
        sample_continuations(model, tokenizer, prompts=prompts, sampling=greedy, batch_size=8, advance=silent)
        for model in (served, folded, language_model.load()[0])
    )
    assert texts == others
    assert texts != without


def changed_adapter(language_model: LanguageModel) -> Adapter:
    """An adapter of rank 4 that changes what the model writes."""
    base, _ = language_model.load()
    model = new_adapter_model(base, rank=4, alpha=64, target_modules=["q_proj", "v_proj"], layers=None, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    return replace(adapter_from_model(model, base_model="packaged", record={}), charge_ids=("charge",))
