"""Policy optimisation against the reward model, by REINFORCE with a leave-one-out baseline (TRL's `RLOOTrainer`).

The paper uses PPO with unmodified TRL. TRL 1.x has no `PPOTrainer` any more; its successor for a reward model is RLOO
(Ahmadian et al., "Back to Basics", arXiv 2402.14740), which drops PPO's value network: an answer's baseline is the mean
reward of the other answers to the same prompt. The KL penalty to the reference is as in PPO: kl_coefficient times
log(policy / reference), summed over the answer's tokens, is taken off its reward.

The policy continues the SFT adapter, and the reference is a frozen copy of that adapter, which TRL keeps as a second
adapter named `ref` on the same base weights. So the result is one adapter for the base model itself:
`PeftModel.from_pretrained(base, folder)` is the aligned policy, without merging the SFT adapter first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase
from trl import RLOOConfig, RLOOTrainer

from dp_assets.alignment._trainer import Curve, common_arguments, train_quietly, training_scope
from dp_assets.alignment.reward import score_answers
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.progress import Advance

REFERENCE_ADAPTER = "ref"
FIGURES = {"reward": "reward", "kl": "kl", "completions/mean_length": "completion_length"}


@dataclass(frozen=True)
class RlhfTraining:
    """`curve` has, for each step and before its update, the mean `reward` (without the KL penalty) and
    `completion_length` (tokens) of the sampled answers, and `kl`: log(policy / reference) in nats, mean over their
    tokens, an estimate that may be negative.
    """

    model: PeftModel
    curve: Curve


def train_policy(
    policy_model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: nn.Module,
    prompts: Sequence[str],
    *,
    learning_rate: float,
    steps: int,
    prompts_per_step: int,
    num_generations: int,
    max_prompt_tokens: int,
    max_new_tokens: int,
    temperature: float,
    kl_coefficient: float,
    seed: int,
    advance: Advance,
) -> RlhfTraining:
    """Train the adapter of `policy_model` further, `advance(1)` after each of `steps` optimiser steps.

    Args:
      policy_model: the base model with the SFT adapter, trainable; it is changed in place and returned.
      reward_model: a sequence classifier with one output, in evaluation mode.
      prompts: instructions; those of more than `max_prompt_tokens` tokens, with the text around them, are left out.
      prompts_per_step: prompts answered in a step. All their answers make one batch.
      num_generations: answers sampled to each prompt; at least two, because each is the other's baseline.
      max_new_tokens: longest answer. One that reaches it is scored as it stands.
      kl_coefficient: weight of the KL penalty, positive: without it the policy would exploit the reward model's errors.

    Raises:
      ValueError: `kl_coefficient` is not positive, or fewer than `prompts_per_step` prompts are short enough.
    """
    if kl_coefficient <= 0:
        raise ValueError("kl_coefficient must be positive, or nothing keeps the policy near the reference")
    training_prompts = _short_prompts(
        prompts, tokenizer, max_prompt_tokens=max_prompt_tokens, at_least=prompts_per_step
    )
    with training_scope(policy_model.get_base_model()) as folder:
        trainer = _PolicyTrainer(
            model=policy_model,
            reward_funcs=_reward_function(reward_model, tokenizer),
            args=RLOOConfig(
                **common_arguments(
                    folder,
                    device=policy_model.device,
                    learning_rate=learning_rate,
                    batch_size=prompts_per_step * num_generations,
                    seed=seed,
                ),
                max_steps=steps,
                num_generations=num_generations,
                max_completion_length=max_new_tokens,
                temperature=temperature,
                beta=kl_coefficient,
            ),
            train_dataset=Dataset.from_list(training_prompts),
            processing_class=tokenizer,
        )
        curve = train_quietly(trainer, advance=advance, figures=FIGURES)
        policy_model.delete_adapter(REFERENCE_ADAPTER)
    return RlhfTraining(policy_model, curve)


class _PolicyTrainer(RLOOTrainer):  # type: ignore[misc]
    """TRL would apply the chat template in its own way; the policy shall see the prompt that answers come from."""

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [answer_prompt_ids(self.processing_class, prompt) for prompt in prompts], None, {}


def _reward_function(reward_model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[float]]:
    """The reward model as TRL calls it, with one prompt for each completion and figures that are not needed here."""

    def reward(*, prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return score_answers(reward_model, tokenizer, prompts=prompts, answers=completions)

    return reward


def _short_prompts(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_prompt_tokens: int, at_least: int
) -> list[dict[str, str]]:
    short = [prompt for prompt in prompts if len(answer_prompt_ids(tokenizer, prompt)) <= max_prompt_tokens]
    if len(short) < at_least:
        raise ValueError(
            f"{len(short)} prompts are within max_prompt_tokens, but a step takes prompts_per_step = {at_least};"
            " raise max_prompt_tokens, lower prompts_per_step or pass more prompts"
        )
    return [{"prompt": prompt} for prompt in short]
