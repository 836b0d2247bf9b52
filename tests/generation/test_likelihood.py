"""The loss of texts is the mean over all their tokens, whichever batch they are in."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.generation.likelihood import mean_token_loss
from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids

TEXTS = ["why?", "how do i bake bread at home?", "what is the capital of france?", "tell me a story"]
MAX_TOKENS = 12


@pytest.fixture
def loaded(tiny_model_folder: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
    return model, AutoTokenizer.from_pretrained(tiny_model_folder)


@torch.no_grad()
def one_by_one(model: Any, tokenizer: Any) -> float:
    """The same from the model's own logits of each text alone, without a mask."""
    prompt, losses = generator_prompt_ids(tokenizer, prompt="user_turn"), []
    for text in TEXTS:
        target = encode_instruction(tokenizer, text, max_tokens=MAX_TOKENS)
        logits = model(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        losses += functional.cross_entropy(logits, torch.tensor(target), reduction="none").tolist()
    return sum(losses) / len(losses)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_it_is_the_mean_over_the_tokens_of_each_text_alone(loaded: tuple[Any, Any], batch_size: int) -> None:
    prompt_ids = generator_prompt_ids(loaded[1], prompt="user_turn")
    measured = mean_token_loss(*loaded, TEXTS, prompt_ids=prompt_ids, max_tokens=MAX_TOKENS, batch_size=batch_size)
    assert measured == pytest.approx(one_by_one(*loaded), rel=1e-5)


def test_no_texts_have_no_loss(loaded: tuple[Any, Any]) -> None:
    assert math.isnan(mean_token_loss(*loaded, [], prompt_ids=[1], max_tokens=MAX_TOKENS, batch_size=4))
