"""Every method trains the adapter only, from the SFT policy, and is measured alike."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from dp_assets.alignment.reward import classifier_from_causal
from dp_assets.alignment.rlhf import train_policy
from dp_assets.alignment.settings import RlhfSettings
from dp_assets.generation.adapters import adapter_from_model, attach_adapter, new_adapter_model
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.progress import silent

METHODS = ("rloo", "grpo", "dpo")
PROMPTS = ["how do i bake bread?", "why is the sky blue?", "tell me a story.", "what is gravity?", "where is france?"]
PAIRS = pl.DataFrame({"prompt": PROMPTS, "chosen": ["a cat"] * 5, "rejected": ["zz zz zz"] * 5})
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], "layers": None}
CURVE = {"step", "loss"}
FIGURES = {"step", "reward", "kl", "answer_tokens", "distinct_1", "distinct_2"}


def sft_policy(model: Any) -> Any:
    """A trainable adapter whose second factor is not zero, as after SFT."""
    policy = new_adapter_model(model, **LORA, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    return policy


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if tensor.requires_grad}


def train(
    policy: Any,
    tokenizer: Any,
    reward_model: Any,
    prompts: Any = PROMPTS,
    pairs: pl.DataFrame = PAIRS,
    advance: Any = silent,
    **changed: Any,
) -> Any:
    settings: dict[str, Any] = {
        "method": "rloo",
        "learning_rate": 1e-2,
        "steps": 3,
        "prompts_per_step": 2,
        "num_generations": 2,
        "max_prompt_tokens": 40,
        "max_new_tokens": 6,
        "temperature": 1.0,
        "kl_coefficient": 0.05,
        "evaluation_prompts": 2,
        "evaluations": 2,
        "seed": 0,
    }
    return train_policy(
        policy, tokenizer, reward_model, prompts, pairs, RlhfSettings(**(settings | changed)), advance=advance
    )


class LikesShortTexts(nn.Module):
    """A reward model in the shape of a sequence classifier: minus the number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=-attention_mask.sum(dim=1, keepdim=True).float())


class LikesWordPieces(LikesShortTexts):
    """A reward model that counts the tokens of more than one byte, which follow the special tokens and the bytes."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        pieces = (input_ids >= 3 + 256) & (attention_mask == 1)
        return SimpleNamespace(logits=pieces.sum(dim=1, keepdim=True).float())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_steps_move_the_adapter_only(
    load_model: Callable[..., Any], tokenizer: Any, dtype: torch.dtype, method: str
):
    policy = sft_policy(load_model(dtype))
    before = trainable(policy)
    frozen = policy.get_base_model().model.embed_tokens.weight.clone()
    training = train(policy, tokenizer, classifier_from_causal(load_model(dtype), tokenizer, seed=0), method=method)
    after = trainable(training.model)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert torch.equal(policy.get_base_model().model.embed_tokens.weight, frozen)
    assert all(np.isfinite(list(entry.values())).all() for entry in [*training.curve, *training.evaluations])


def test_all_methods_report_under_the_same_names_from_the_same_start(load_model: Callable[..., Any], tokenizer: Any):
    trainings = {
        method: train(sft_policy(load_model()), tokenizer, LikesShortTexts(), method=method, evaluations=3)
        for method in METHODS
    }
    for training in trainings.values():
        assert [entry["step"] for entry in training.curve] == [1, 2, 3]
        assert all("loss" in entry for entry in training.curve)
        assert [point["step"] for point in training.evaluations] == [0, 2, 3]
        assert all(set(point) == FIGURES for point in training.evaluations)
        assert training.figures == {"rows_trained_on": 3.0, "rows_left_out": 2.0}
    assert trainings["rloo"].evaluations[0] == trainings["grpo"].evaluations[0] == trainings["dpo"].evaluations[0]
    assert len({tuple(training.evaluations[-1].values()) for training in trainings.values()}) == 3
    assert (
        set(trainings["rloo"].curve[0])
        == set(trainings["grpo"].curve[0])
        == CURVE
        | {
            "reward",
            "kl",
            "completion_length",
        }
    )
    assert set(trainings["dpo"].curve[0]) == CURVE | {"accuracy", "margin"}


@pytest.mark.parametrize("method", METHODS)
def test_kl_is_taken_to_the_policy_as_it_was_given_and_not_to_the_base_model(
    load_model: Callable[..., Any], tokenizer: Any, method: str
):
    first, last = train(sft_policy(load_model()), tokenizer, LikesShortTexts(), method=method, steps=4).evaluations
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert last["kl"] > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_measuring_more_often_changes_no_step(load_model: Callable[..., Any], tokenizer: Any, method: str):
    seldom, often = (
        trainable(train(sft_policy(load_model()), tokenizer, LikesShortTexts(), method=method, evaluations=count).model)
        for count in (2, 4)
    )
    assert all(torch.equal(seldom[name], often[name]) for name in seldom)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_one_adapter_for_the_base_model(load_model: Callable[..., Any], tokenizer: Any, method: str):
    policy = train(sft_policy(load_model()), tokenizer, LikesShortTexts(), method=method).model
    assert list(policy.peft_config) == ["default"]
    adapter = adapter_from_model(policy, base_model="tiny", record={})
    restored = attach_adapter(load_model(), adapter)
    ids = torch.tensor([answer_prompt_ids(tokenizer, PROMPTS[0])])
    with torch.no_grad():
        assert torch.allclose(restored(ids).logits, policy(ids).logits, atol=1e-6)
        assert not torch.allclose(load_model()(ids).logits, policy(ids).logits, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_reward_at_prompts_kept_from_training_rises(load_model: Callable[..., Any], tokenizer: Any, method: str):
    prompts = [f"tell me story {number}." for number in range(72)]
    # Most first tokens of this policy are line breaks or single bytes, so an answer of one token can gain 0.4 or so.
    pairs = pl.DataFrame({"prompt": prompts, "chosen": ["you"] * 72, "rejected": ["\n"] * 72})
    first, last = train(
        sft_policy(load_model()),
        tokenizer,
        LikesWordPieces(),
        prompts,
        pairs,
        method=method,
        steps=20,
        prompts_per_step=8,
        num_generations=8,
        max_new_tokens=1,
        evaluation_prompts=64,
    ).evaluations
    assert last["reward"] > first["reward"] + 0.2


def test_dpo_prefers_what_was_chosen_and_never_samples_to_train(load_model: Callable[..., Any], tokenizer: Any):
    curve = train(sft_policy(load_model()), tokenizer, LikesShortTexts(), method="dpo", steps=20).curve
    assert curve[0]["margin"] == pytest.approx(0.0, abs=1e-6)
    assert curve[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert curve[-1]["margin"] > 0.1
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_answers_are_sampled_after_the_prompt_that_annotators_see(
    load_model: Callable[..., Any], tokenizer: Any, method: str
):
    seen = rows_seen_in(load_model(), tokenizer, method=method, prompts_per_step=3, evaluation_prompts=2)
    starts = {
        prompt: sum(row[-len(ids) :] == ids or row[1 - len(ids) :] == ids[:-1] for row in seen)
        for prompt, ids in ((prompt, answer_prompt_ids(tokenizer, prompt)) for prompt in PROMPTS)
    }
    # Two answers to each prompt trained on, and one to each other before the step and after it, where a prompt is read
    # up to its last token first.
    assert list(starts.values()) == [2] * 5


def test_dpo_sees_the_same_prompt_before_both_answers(load_model: Callable[..., Any], tokenizer: Any):
    pairs = PAIRS.with_columns(chosen=pl.lit("chosen one"), rejected=pl.lit("rejected one"))
    seen = rows_seen_in(load_model(), tokenizer, pairs=pairs, method="dpo", prompts_per_step=3)
    for side in ("chosen one", "rejected one"):
        ids = tokenizer(side, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        rows = [answer_prompt_ids(tokenizer, prompt) + ids for prompt in PROMPTS]
        # By the policy and by the reference; the prompts that are measured at have no part in training.
        assert sorted(sum(row[: len(each)] == each for row in seen) for each in rows) == [0, 0, 2, 2, 2]


def rows_seen_in(model: Any, tokenizer: Any, pairs: pl.DataFrame = PAIRS, **changed: Any) -> list[list[int]]:
    """The rows of token ids that the policy reads in a training of one step."""
    seen: list[list[int]] = []
    model.base_model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].tolist()))
    train(sft_policy(model), tokenizer, LikesShortTexts(), pairs=pairs, steps=1, **changed)
    return seen


def test_prompts_over_the_limit_are_left_out_and_too_few_are_refused(load_model: Callable[..., Any], tokenizer: Any):
    prompts = [*PROMPTS[:2], "why? " * 60]
    policy = sft_policy(load_model())
    fitting = {"prompts_per_step": 1, "evaluation_prompts": 1, "steps": 1}
    assert train(policy, tokenizer, LikesShortTexts(), prompts, **fitting).figures["rows_left_out"] == 2.0
    with pytest.raises(ValueError, match="prompts_per_step = 2"):
        train(policy, tokenizer, LikesShortTexts(), prompts, evaluation_prompts=1)
    with pytest.raises(ValueError, match="evaluation_prompts = 3"):
        train(policy, tokenizer, LikesShortTexts(), prompts, evaluation_prompts=3, method="dpo")


def test_pairs_over_the_limit_are_left_out_and_fewer_than_a_batch_are_refused(
    load_model: Callable[..., Any], tokenizer: Any
):
    policy = sft_policy(load_model())
    long = pl.DataFrame({"prompt": ["why?"], "chosen": ["a"], "rejected": ["zz " * 60]})
    trained = train(policy, tokenizer, LikesShortTexts(), pairs=pl.concat([PAIRS, long]), method="dpo", steps=1)
    assert trained.figures == {"rows_trained_on": 3.0, "rows_left_out": 3.0}
    with pytest.raises(ValueError, match=r"3 preference pairs .* prompts_per_step = 4; make more preference pairs"):
        train(policy, tokenizer, LikesShortTexts(), method="dpo", prompts_per_step=4)


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_without_a_kl_penalty_is_refused(method: str):
    with pytest.raises(ValueError, match=r"kl_coefficient\n.*greater than 0"):
        train(None, None, None, kl_coefficient=0.0, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_training_counts_steps_and_leaves_output_generators_and_forward_alone(
    load_model: Callable[..., Any], tokenizer: Any, capsys: pytest.CaptureFixture[str], method: str
):
    state, advanced = torch.get_rng_state(), []
    policy = sft_policy(load_model())
    train(policy, tokenizer, LikesShortTexts(), advance=advanced.append, method=method)
    assert advanced == [1, 1, 1]
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(policy.get_base_model())


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_ends_training_at_once_and_leaves_no_second_adapter_behind(
    load_model: Callable[..., Any], tokenizer: Any, method: str
):
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    state, policy = torch.get_rng_state(), sft_policy(load_model())
    with pytest.raises(KeyboardInterrupt):
        train(policy, tokenizer, LikesShortTexts(), advance=interrupted, method=method)
    assert list(policy.peft_config) == ["default"]
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(policy.get_base_model())
