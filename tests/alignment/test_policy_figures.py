"""The divergence of two policies against its definition, and that measuring leaves the policy as it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dp_assets.alignment.policy_figures import evaluate_policy
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.generation.settings import SamplingParameters

PROMPTS = ["how do i bake bread?", "why?", "tell me a story about a brave little cat."]


class LikesShortTexts(nn.Module):
    """A reward model in the shape of a sequence classifier: minus the number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=-attention_mask.sum(dim=1, keepdim=True).float())


@pytest.fixture
def policy(load_model: Callable[..., Any]) -> Any:
    """A policy with the adapters `default`, which is active, and `ref`, which differs from it."""
    model = new_adapter_model(
        load_model(), rank=4, alpha=8.0, target_modules=["q_proj", "down_proj"], layers=None, seed=0
    )
    model.add_adapter("ref", model.peft_config["default"])
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return model


def measured(
    policy: Any, tokenizer: Any, prompts: list[str] = PROMPTS, *, reference_adapter: str = "ref", **changed: Any
) -> dict[str, float]:
    sampling = replace(SamplingParameters(max_new_tokens=5, temperature=1.0, top_p=1.0, seed=0), **changed)
    return evaluate_policy(policy, tokenizer, LikesShortTexts(), prompts, sampling, reference_adapter=reference_adapter)


@torch.no_grad()
def next_token_logs(policy: Any, rows: list[list[int]], temperature: float) -> Iterator[torch.Tensor]:
    """Log probabilities (rows, vocabulary) of the policy and of the reference."""
    for adapter in ("default", "ref"):
        policy.set_adapter(adapter)
        yield torch.log_softmax(policy(torch.tensor(rows)).logits[:, -1] / temperature, dim=-1)
    policy.set_adapter("default")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_divergence_of_answers_of_one_token_is_exact(policy: Any, tokenizer: Any, temperature: float):
    expected = []
    for prompt in PROMPTS:
        ours, theirs = next_token_logs(policy, [answer_prompt_ids(tokenizer, prompt)], temperature)
        expected.append(float((ours.exp() * (ours - theirs)).sum()))
    figures = measured(policy, tokenizer, max_new_tokens=1, temperature=temperature)
    assert figures["kl"] == pytest.approx(sum(expected) / len(PROMPTS), rel=1e-4)
    assert figures["kl"] > 1e-3


def test_the_divergence_of_longer_answers_agrees_with_the_sum_over_all_of_them(policy: Any, tokenizer: Any):
    """Answers of at most two tokens: the log ratio of each that there can be, weighted by its probability."""
    start = answer_prompt_ids(tokenizer, PROMPTS[1])
    (first,), (first_reference,) = next_token_logs(policy, [start], 1.0)
    goes_on = torch.ones(len(first))
    goes_on[[tokenizer.eos_token_id, *tokenizer.all_special_ids]] = 0.0
    second, second_reference = next_token_logs(policy, [[*start, token] for token in range(len(first))], 1.0)
    after_each = goes_on * (second.exp() * (second - second_reference)).sum(dim=1)
    expected = float((first.exp() * (first - first_reference + after_each)).sum())
    figures = measured(policy, tokenizer, [PROMPTS[1]] * 400, max_new_tokens=2)
    assert figures["kl"] == pytest.approx(expected, rel=0.05)


def test_a_policy_does_not_diverge_from_itself(policy: Any, tokenizer: Any):
    assert measured(policy, tokenizer, reference_adapter="default")["kl"] == 0.0


@pytest.mark.parametrize(("training", "seed"), list(product([True, False], [0, 1])))
def test_measuring_leaves_mode_adapter_gradients_and_generators_alone(
    policy: Any, tokenizer: Any, training: bool, seed: int
):
    policy.train(training)
    state, trainable = torch.get_rng_state(), [parameter.requires_grad for parameter in policy.parameters()]
    first = measured(policy, tokenizer, seed=seed)
    assert policy.training is training
    assert policy.active_adapter == "default"
    assert [parameter.requires_grad for parameter in policy.parameters()] == trainable
    assert torch.equal(torch.get_rng_state(), state)
    assert measured(policy, tokenizer, seed=seed) == first
    assert set(first) == {"reward", "kl", "answer_tokens", "distinct_1", "distinct_2"}


def test_length_counts_sampled_tokens_with_the_end_token(policy: Any, tokenizer: Any):
    policy.get_base_model().lm_head.register_forward_hook(always(tokenizer.eos_token_id))
    figures = measured(policy, tokenizer)
    assert figures["answer_tokens"] == 1.0
    assert figures["distinct_1"] == figures["distinct_2"] == 0.0


def always(token: int) -> Callable[..., torch.Tensor]:
    """A hook that makes one token the only likely one."""

    def hook(_: nn.Module, __: Any, logits: torch.Tensor) -> torch.Tensor:
        certain = torch.full_like(logits, -1e4)
        certain[..., token] = 0.0
        return certain

    return hook
