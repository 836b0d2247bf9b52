"""A tiny draw of every kind finds a model that texts could not be drawn from later."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.generation import trial
from dp_assets.generation.fitness import UnfitModel
from dp_assets.generation.settings import SamplingParameters, SamplingSettings
from dp_assets.generation.trial import try_answering, try_sampling

SETTINGS = SamplingSettings(
    prompt="user_turn", num_samples=1000, max_new_tokens=20, temperature=1.0, top_p=0.95, batch_size=64, seed=0
)


@pytest.fixture
def loaded(tiny_model_folder: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
    return model, AutoTokenizer.from_pretrained(tiny_model_folder)


def attempt(loaded: tuple[Any, Any], max_new_tokens: int = 20) -> None:
    settings = SETTINGS.model_copy(update={"max_new_tokens": max_new_tokens})
    try_sampling(*loaded, settings)
    try_answering(*loaded, settings.parameters, longest_instruction=20)


def test_a_sound_model_passes_with_few_tokens_and_is_left_as_it_was(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def watch(name: str) -> None:
        real = getattr(trial, name)

        def watched(*arguments: Any, sampling: SamplingParameters, **settings: Any) -> Any:
            asked.append(sampling.max_new_tokens)
            return real(*arguments, sampling=sampling, **settings)

        monkeypatch.setattr(trial, name, watched)

    for name in ("sample_instructions", "sample_steered", "generate_answers"):
        watch(name)
    before = {name: tensor.clone() for name, tensor in loaded[0].state_dict().items()}
    attempt(loaded)
    assert asked == [trial.FEW_TOKENS] * 3
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded[0].state_dict().items())


def test_a_model_that_fails_while_it_draws_is_named_with_the_stage(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel")

    for name, words in (
        ("sample_steered", "sampling: no text can be drawn .*no kernel"),
        ("generate_answers", "annotation: language_model cannot answer: .*no kernel"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(trial, name, fail)
            with pytest.raises(UnfitModel, match=words):
                attempt(loaded)


def test_a_tokenizer_without_an_end_token_is_refused_before_anything_is_drawn(loaded: tuple[Any, Any]) -> None:
    loaded[1].eos_token = None
    with pytest.raises(UnfitModel, match="no eos token"):
        attempt(loaded)
