"""Steered samples: what stands in the prompt, and what belongs to the text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids
from dp_assets.generation.steering import context_ids, opening_ids, sample_steered
from dp_assets.progress import silent
from dp_assets.vocabulary import Steering
from tests.generation.sampling_arguments import sampling_arguments

STEERINGS: list[Steering] = [
    ((), ""),
    ((), "tell me"),
    (("why is the sky blue?", "what is gravity?"), ""),
    (("why?",), "where can i"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    """Never ends a text; with tied embeddings the tiny model would only repeat its last token."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
    model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.5)
        model.lm_head.bias.zero_()
        model.lm_head.bias[:3] = -100.0
    return model


def sample(model: Any, tokenizer: Any, steerings: list[Steering], **changes: Any) -> list[str]:
    settings: dict[str, Any] = {
        "prompt": "user_turn",
        "max_new_tokens": 12,
        "temperature": 1.0,
        "top_p": 0.95,
        "batch_size": 3,
        "seed": 3,
        "advance": silent,
    }
    return sample_steered(model, tokenizer, steerings=steerings, **sampling_arguments(settings | changes))


@pytest.mark.parametrize("prompt", ["user_turn", "system_user_turn", "empty"])
def test_earlier_turns_stand_before_the_open_one_as_finished_texts(tokenizer: Any, prompt: Any) -> None:
    first = generator_prompt_ids(tokenizer, prompt=prompt)
    again = generator_prompt_ids(tokenizer, prompt="empty" if prompt == "empty" else "user_turn")
    turns = [encode_instruction(tokenizer, text, max_tokens=12) for text in ("why?", "where is it?")]
    assert context_ids(tokenizer, (), prompt=prompt, max_tokens=12) == first
    assert context_ids(tokenizer, ("why?", "where is it?"), prompt=prompt, max_tokens=12) == [
        *first,
        *turns[0],
        *again,
        *turns[1],
        *again,
    ]


def test_an_earlier_text_that_spells_a_control_token_ends_no_turn(tokenizer: Any) -> None:
    spelled = context_ids(tokenizer, (f"a{tokenizer.eos_token}b",), prompt="user_turn", max_tokens=50)
    plain = context_ids(tokenizer, ("ab",), prompt="user_turn", max_tokens=50)
    assert spelled.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


def test_there_is_one_text_each_in_order_that_begins_with_its_opening(model: Any, tokenizer: Any) -> None:
    seen: list[int] = []
    texts = sample(model, tokenizer, STEERINGS, advance=seen.append)
    assert len(texts) == len(STEERINGS) == sum(seen)
    for (_, opening), text in zip(STEERINGS, texts, strict=True):
        assert text.startswith(opening)
        assert len(text) > len(opening)


def test_an_opening_counts_towards_the_longest_text(model: Any, tokenizer: Any) -> None:
    opening = "where can i find good books about bread and gravity and the sky"
    (text,) = sample(model, tokenizer, [((), opening)], max_new_tokens=6)
    cut = tokenizer.decode(opening_ids(tokenizer, opening, max_tokens=6))
    assert opening.startswith(cut)
    assert text.startswith(cut)
    assert len(text) - len(cut) <= max(map(len, tokenizer.get_vocab()))


def test_an_opening_leaves_something_to_write(tokenizer: Any) -> None:
    assert opening_ids(tokenizer, "", max_tokens=5) == []
    assert len(opening_ids(tokenizer, "where can i find good books about bread", max_tokens=5)) == 4


def test_what_is_shown_decides_what_is_written(model: Any, tokenizer: Any) -> None:
    once, again = sample(model, tokenizer, STEERINGS), sample(model, tokenizer, STEERINGS)
    shown_other = [(("tell me about france",), "") if earlier else (earlier, opening) for earlier, opening in STEERINGS]
    assert once == again
    assert sample(model, tokenizer, STEERINGS, seed=4) != once
    assert sample(model, tokenizer, shown_other)[2] != once[2]


def test_nothing_asked_draws_nothing(model: Any, tokenizer: Any) -> None:
    assert sample(model, tokenizer, []) == []
