"""Sampling repeats under its seed, stays within its bounds and leaves torch's global generator alone."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dp_assets.dpsgd.packing import require_rows_apart
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.decoding import keeps_columns
from dp_assets.generation.prompts import answer_prompt_ids, generator_prompt_ids
from dp_assets.generation.sampling import (
    answer_texts,
    deduplicate,
    generate_answer_ids,
    generate_answers,
    sample_instructions,
)
from dp_assets.progress import silent
from tests.generation.sampling_arguments import sampling_arguments

INSTRUCTIONS = ("why?", "what is the capital of france and how far is it?", "tell me a story", "why is the sky blue?")


def with_random_head(folder: Path, *, end_bias: float) -> Any:
    """The tiny model with an output layer of its own: with tied embeddings it would only repeat its last token.

    `end_bias` is added to the logit of the end token; the other special tokens never occur.
    """
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.5)
        model.lm_head.bias.zero_()
        model.lm_head.bias[:2] = -100.0
        model.lm_head.bias[model.config.eos_token_id] = end_bias
    return model


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    """Never ends a text."""
    return with_random_head(tiny_model_folder, end_bias=-100.0)


@pytest.fixture(scope="module")
def ending_model(tiny_model_folder: Path) -> Any:
    """Ends a text after a few tokens."""
    return with_random_head(tiny_model_folder, end_bias=8.0)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


def sample(model: Any, tokenizer: Any, **changes: Any) -> pl.DataFrame:
    arguments: dict[str, Any] = {
        "prompt_ids": generator_prompt_ids(tokenizer, prompt="user_turn"),
        "num_samples": 10,
        "max_new_tokens": 8,
        "temperature": 1.0,
        "top_p": 0.95,
        "batch_size": 4,
        "seed": 3,
        "advance": silent,
    }
    return sample_instructions(model, tokenizer, **sampling_arguments(arguments | changes))


def answer(model: Any, tokenizer: Any, generate: Any = generate_answers, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "instructions": INSTRUCTIONS,
        "max_new_tokens": 6,
        "temperature": 0.0,
        "top_p": 1.0,
        "batch_size": 2,
        "seed": 3,
        "advance": silent,
    }
    return generate(model, tokenizer, **sampling_arguments(arguments | changes))


def test_a_seed_repeats_the_samples_and_another_seed_does_not(model: Any, tokenizer: Any) -> None:
    first = sample(model, tokenizer)
    assert first.equals(sample(model, tokenizer))
    assert not first.equals(sample(model, tokenizer, seed=4))


def test_sampling_and_answering_leave_the_global_generator_alone(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    sample(model, tokenizer)
    answer(model, tokenizer, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_lengths_are_bounded_and_cut_samples_say_so(ending_model: Any, tokenizer: Any) -> None:
    samples = sample(ending_model, tokenizer, num_samples=40)
    assert samples.schema == {"text": pl.String, "num_tokens": pl.Int64, "finished": pl.Boolean}
    assert samples["num_tokens"].is_between(1, 8).all()
    assert (samples["finished"] == (samples["num_tokens"] < 8)).all()
    assert samples["finished"].n_unique() == 2


def test_a_model_that_never_ends_gives_only_cut_samples(model: Any, tokenizer: Any) -> None:
    samples = sample(model, tokenizer, max_new_tokens=3)
    assert set(samples["num_tokens"]) == {3}
    assert not samples["finished"].any()


def test_texts_are_stripped_not_empty_and_free_of_control_tokens(tiny_model_folder: Path, tokenizer: Any) -> None:
    samples = sample(with_random_head(tiny_model_folder, end_bias=11.0), tokenizer, num_samples=400)
    assert 0 < samples.height < 400  # Some samples end at once, and were dropped.
    assert (samples["text"] == samples["text"].str.strip_chars()).all()
    assert (samples["text"] != "").all()
    assert not samples["text"].str.contains("<|im_end|>", literal=True).any()


def test_progress_counts_what_was_drawn_not_what_was_kept(ending_model: Any, tokenizer: Any) -> None:
    counts: list[int] = []
    sample(ending_model, tokenizer, advance=counts.append)
    assert sum(counts) == 10
    assert len(counts) > 1


def test_no_samples_asked_gives_an_empty_frame_with_the_columns(model: Any, tokenizer: Any) -> None:
    samples = sample(model, tokenizer, num_samples=0)
    assert samples.height == 0
    assert samples.columns == ["text", "num_tokens", "finished"]


@pytest.mark.parametrize("prompt", ["user_turn", "empty"])
def test_samples_continue_the_prompt_as_plain_generation_would(model: Any, tokenizer: Any, prompt: Any) -> None:
    prompt_ids = generator_prompt_ids(tokenizer, prompt=prompt)
    likeliest = sample(model, tokenizer, prompt_ids=prompt_ids, num_samples=2, temperature=0.0)
    ids = list(prompt_ids)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = tokenizer.decode(ids[len(prompt_ids) :]).strip()
    assert likeliest["text"].to_list() == [expected, expected]


def test_a_fresh_adapter_does_not_change_the_samples(tiny_model_folder: Path, tokenizer: Any) -> None:
    plain = with_random_head(tiny_model_folder, end_bias=-100.0)
    before = sample(plain, tokenizer)
    adapted = new_adapter_model(plain, rank=2, alpha=4, target_modules=["q_proj"], layers=None, seed=0)
    assert sample(adapted.eval(), tokenizer).equals(before)


def test_deduplicate_keeps_the_first_of_equal_texts_in_order() -> None:
    samples = pl.DataFrame({"text": ["b", "a", "b", "c", "a"], "num_tokens": [1, 2, 3, 4, 5]})
    kept = deduplicate(samples)
    assert kept["text"].to_list() == ["b", "a", "c"]
    assert kept["num_tokens"].to_list() == [1, 2, 4]


def test_greedy_answers_come_in_the_order_asked_and_do_not_depend_on_the_batch(model: Any, tokenizer: Any) -> None:
    alone = [answer(model, tokenizer, instructions=[instruction], batch_size=1)[0] for instruction in INSTRUCTIONS]
    assert answer(model, tokenizer, batch_size=3) == alone
    assert answer(model, tokenizer, instructions=INSTRUCTIONS[::-1]) == alone[::-1]
    assert len(set(alone)) > 1


def test_a_greedy_answer_follows_the_open_assistant_turn(model: Any, tokenizer: Any) -> None:
    prompt_ids = answer_prompt_ids(tokenizer, INSTRUCTIONS[0])
    continued = sample(model, tokenizer, prompt_ids=prompt_ids, num_samples=1, max_new_tokens=6, temperature=0.0)
    assert continued["text"].to_list() == answer(model, tokenizer)[:1]


def test_sampled_answers_repeat_under_a_seed(model: Any, tokenizer: Any) -> None:
    first = answer(model, tokenizer, temperature=1.0)
    assert first == answer(model, tokenizer, temperature=1.0)
    assert first != answer(model, tokenizer, temperature=1.0, seed=4)


def test_the_tokens_of_an_answer_end_with_the_one_that_ended_it(ending_model: Any, tokenizer: Any) -> None:
    asked = {"instructions": INSTRUCTIONS * 8, "temperature": 1.0}
    answers = answer(ending_model, tokenizer, generate=generate_answer_ids, **asked)
    ended = [ids for ids in answers if ids[-1] == tokenizer.eos_token_id]
    assert len(ended) > 0
    assert all(ids.count(tokenizer.eos_token_id) == 1 for ids in ended)
    assert max(map(len, answers)) > min(map(len, answers))
    assert answer_texts(tokenizer, answers) == answer(ending_model, tokenizer, **asked)


def test_no_instructions_give_no_answers_and_progress_counts_answers(model: Any, tokenizer: Any) -> None:
    counts: list[int] = []
    assert answer(model, tokenizer, instructions=[], advance=counts.append) == []
    assert counts == []
    answer(model, tokenizer, batch_size=3, advance=counts.append)
    assert sum(counts) == len(INSTRUCTIONS)


def test_a_control_token_other_than_the_end_also_stops_a_text(tiny_model_folder: Path, tokenizer: Any) -> None:
    model = with_random_head(tiny_model_folder, end_bias=-100.0)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.bos_token_id] = 8.0
    samples = sample(model, tokenizer, num_samples=40)
    assert samples["num_tokens"].min() < 8
    assert not samples["finished"].any()


def test_a_model_whose_layers_share_keys_and_values_passes_private_training_and_is_sampled_in_batches(
    tokenizer: Any,
) -> None:
    """So sampling in whole batches has a use; a recurrent model would be refused before."""
    config = AutoConfig.for_model(
        "gemma3n_text",
        vocab_size=len(tokenizer),
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size=32,
        hidden_size_per_layer_input=8,
        intermediate_size=[64] * 4,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    sharing = AutoModelForCausalLM.from_config(config).eval()
    require_rows_apart(sharing, longest=12)
    assert not keeps_columns(sharing)
    samples = sample(sharing, tokenizer)
    assert samples.height > 0
    assert samples.equals(sample(sharing, tokenizer))
