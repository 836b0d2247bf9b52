from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dp_assets.alignment.reward import classifier_from_causal
from dp_assets.alignment.rlhf import train_policy
from dp_assets.generation.adapters import adapter_from_model, attach_adapter, new_adapter_model
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.progress import silent

PROMPTS = ["how do i bake bread?", "why is the sky blue?", "tell me a story."]
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], "layers": None}


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


def train(policy: Any, tokenizer: Any, reward_model: Any, prompts: Any = PROMPTS, **changed: Any) -> Any:
    settings = {
        "learning_rate": 1e-2,
        "steps": 3,
        "prompts_per_step": 2,
        "num_generations": 2,
        "max_prompt_tokens": 40,
        "max_new_tokens": 6,
        "temperature": 1.0,
        "kl_coefficient": 0.05,
        "seed": 0,
        "advance": silent,
    }
    return train_policy(policy, tokenizer, reward_model, prompts, **(settings | changed))


class LikesShortTexts(nn.Module):
    """A reward model in the shape of a sequence classifier: minus the number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=-attention_mask.sum(dim=1, keepdim=True).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_steps_move_the_adapter_only_and_report_reward_and_kl(
    load_model: Callable[..., Any], tokenizer: Any, dtype: torch.dtype
):
    policy = sft_policy(load_model(dtype))
    before = trainable(policy)
    frozen = policy.get_base_model().model.embed_tokens.weight.clone()
    training = train(policy, tokenizer, classifier_from_causal(load_model(dtype), tokenizer, seed=0))
    assert [entry["step"] for entry in training.curve] == [1, 2, 3]
    assert all(set(entry) == {"step", "reward", "kl", "completion_length"} for entry in training.curve)
    assert all(np.isfinite(list(entry.values())).all() for entry in training.curve)
    after = trainable(training.model)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert torch.equal(policy.get_base_model().model.embed_tokens.weight, frozen)


def test_kl_is_taken_to_the_policy_as_it_was_given_and_not_to_the_base_model(
    load_model: Callable[..., Any], tokenizer: Any
):
    curve = train(sft_policy(load_model()), tokenizer, LikesShortTexts()).curve
    assert curve[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert max(abs(entry["kl"]) for entry in curve[1:]) > 1e-4


def test_the_result_is_one_adapter_for_the_base_model(load_model: Callable[..., Any], tokenizer: Any):
    policy = train(sft_policy(load_model()), tokenizer, LikesShortTexts()).model
    assert list(policy.peft_config) == ["default"]
    adapter = adapter_from_model(policy, base_model="tiny", charge_ids=(), record={})
    restored = attach_adapter(load_model(), adapter)
    ids = torch.tensor([answer_prompt_ids(tokenizer, PROMPTS[0])])
    with torch.no_grad():
        assert torch.allclose(restored(ids).logits, policy(ids).logits, atol=1e-6)
        assert not torch.allclose(load_model()(ids).logits, policy(ids).logits, atol=1e-3)


def test_the_policy_moves_towards_what_is_rewarded(load_model: Callable[..., Any], tokenizer: Any):
    curve = train(
        sft_policy(load_model()),
        tokenizer,
        LikesShortTexts(),
        PROMPTS[:1],
        learning_rate=0.1,
        steps=30,
        prompts_per_step=1,
        num_generations=32,
        max_new_tokens=1,
        kl_coefficient=1e-4,
    ).curve
    rewards = [entry["reward"] for entry in curve]
    # Half of the tiny model's tokens are broken bytes, which decode to a sign of three tokens: at most 2 can be gained.
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.25


def test_answers_are_sampled_after_the_prompt_that_annotators_see(load_model: Callable[..., Any], tokenizer: Any):
    model = load_model()
    seen: list[list[int]] = []
    model.base_model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].tolist()))
    train(sft_policy(model), tokenizer, LikesShortTexts(), steps=1, prompts_per_step=3)
    for prompt in PROMPTS:
        prompt_ids = answer_prompt_ids(tokenizer, prompt)
        assert sum(row[-len(prompt_ids) :] == prompt_ids for row in seen) == 2


def test_prompts_over_the_limit_are_left_out_and_too_few_are_refused(load_model: Callable[..., Any], tokenizer: Any):
    prompts = [*PROMPTS[:1], "why? " * 60]
    policy = sft_policy(load_model())
    train(policy, tokenizer, LikesShortTexts(), prompts, steps=1, prompts_per_step=1)
    with pytest.raises(ValueError, match="prompts_per_step = 2"):
        train(policy, tokenizer, LikesShortTexts(), prompts)


def test_a_policy_without_a_kl_penalty_is_refused(load_model: Callable[..., Any], tokenizer: Any):
    with pytest.raises(ValueError, match="kl_coefficient must be positive"):
        train(sft_policy(load_model()), tokenizer, LikesShortTexts(), kl_coefficient=0.0)


def test_training_counts_steps_and_leaves_output_generators_and_forward_alone(
    load_model: Callable[..., Any], tokenizer: Any, capsys: pytest.CaptureFixture[str]
):
    state, advanced = torch.get_rng_state(), []
    policy = sft_policy(load_model())
    train(policy, tokenizer, LikesShortTexts(), advance=advanced.append)
    assert advanced == [1, 1, 1]
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(policy.get_base_model())
