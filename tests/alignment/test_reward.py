from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
import torch

from dp_assets.alignment.reward import (
    attach_reward_adapter,
    classifier_from_causal,
    score_answers,
    train_reward_model,
)
from dp_assets.alignment.settings import RewardSettings
from dp_assets.generation.adapters import adapter_from_model
from dp_assets.progress import silent

PROMPTS = ["how do i bake bread?", "why is the sky blue?", "tell me a story.", "what is gravity?"]
PAIRS = pl.DataFrame(
    {
        "prompt": PROMPTS * 2,
        "chosen": ["a good book"] * 8,
        "rejected": ["zzz"] * 4 + ["zz zz"] * 4,
        "rejected_by": ["cut"] * 4 + ["hot"] * 4,
    }
)


def train(model: Any, tokenizer: Any, pairs: pl.DataFrame = PAIRS, advance: Any = silent, **changed: Any) -> Any:
    settings: dict[str, Any] = {
        "rank": 4,
        "alpha": 8.0,
        "target_modules": ["q_proj", "v_proj"],
        "learning_rate": 1e-2,
        "epochs": 4,
        "batch_size": 2,
        "max_tokens": 64,
        "held_out_fraction": 0.25,
        "seed": 0,
    }
    return train_reward_model(model, tokenizer, pairs, RewardSettings(**(settings | changed)), advance=advance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_separable_pairs_are_learned_and_held_out_prompts_too(
    load_model: Callable[..., Any], tokenizer: Any, dtype: torch.dtype
):
    training = train(load_model(dtype), tokenizer)
    assert training.curve[-1]["loss"] < training.curve[0]["loss"]
    assert training.curve[-1]["accuracy"] == 1.0
    assert training.figures["pairs_trained"] == 6
    assert training.figures["held_out_pairs"] == 2
    assert training.figures["held_out_accuracy"] == 1.0
    assert training.figures["held_out_margin"] > 0.5
    assert training.figures["held_out_accuracy_hot"] == training.figures["held_out_accuracy_cut"] == 1.0


def test_the_head_is_trained_in_float32_over_a_bfloat16_body(load_model: Callable[..., Any], tokenizer: Any):
    model = train(load_model(torch.bfloat16), tokenizer, epochs=1).model
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for name, parameter in model.named_parameters() if "layernorm" in name} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_reward_adapter_gives_the_same_scores(
    load_model: Callable[..., Any], tokenizer: Any, dtype: torch.dtype
):
    trained = train(load_model(dtype), tokenizer, epochs=1).model
    adapter = adapter_from_model(trained, base_model="tiny", record={})
    restored = attach_reward_adapter(load_model(dtype), tokenizer, adapter)
    answers = ["a good book", "zzz", "bread", ""]
    expected = score_answers(trained, tokenizer, prompts=PROMPTS, answers=answers)
    assert score_answers(restored, tokenizer, prompts=PROMPTS, answers=answers) == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 3) for score in expected}) > 1
    assert not any(parameter.requires_grad for parameter in restored.parameters())


def test_a_score_does_not_depend_on_what_shares_its_batch(load_model: Callable[..., Any], tokenizer: Any):
    classifier = classifier_from_causal(load_model(), tokenizer, seed=0)
    alone = score_answers(classifier, tokenizer, prompts=PROMPTS[:1], answers=["bread"])
    beside_longer = score_answers(classifier, tokenizer, prompts=PROMPTS[:2], answers=["bread", "a long story " * 5])
    assert beside_longer[0] == pytest.approx(alone[0], abs=1e-6)


def test_the_body_is_a_copy_and_the_head_follows_the_seed(load_model: Callable[..., Any], tokenizer: Any):
    model = load_model()
    state = torch.get_rng_state()
    first, again, other = (classifier_from_causal(model, tokenizer, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.score.weight, again.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    body = model.base_model.state_dict()
    assert all(torch.equal(tensor, body[name]) for name, tensor in first.base_model.state_dict().items())
    first.base_model.embed_tokens.weight.data.zero_()
    assert model.base_model.embed_tokens.weight.abs().sum() > 0


def test_pairs_longer_than_the_limit_are_counted_and_left_out(load_model: Callable[..., Any], tokenizer: Any):
    long = PAIRS.head(1).with_columns(rejected=pl.lit("zzz " * 200))
    training = train(load_model(), tokenizer, pl.concat([PAIRS, long]), epochs=1)
    assert training.figures["pairs_too_long"] == 1
    assert training.figures["pairs_trained"] + training.figures["held_out_pairs"] == PAIRS.height


def test_one_prompt_is_too_few(load_model: Callable[..., Any], tokenizer: Any):
    with pytest.raises(ValueError, match="at least two prompts"):
        train(load_model(), tokenizer, PAIRS.filter(pl.col("prompt") == PROMPTS[0]))


def test_training_counts_steps_and_leaves_output_generators_and_model_alone(
    load_model: Callable[..., Any], tokenizer: Any, capsys: pytest.CaptureFixture[str]
):
    model, state, advanced = load_model(), torch.get_rng_state(), []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tokenizer, epochs=1, advance=advanced.append)
    assert advanced == [1, 1, 1]
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
