"""Policy optimization by one of three methods of TRL, over the same prompts, with the same measurements.

    rloo  REINFORCE with a leave-one-out baseline (Ahmadian et al., "Back to Basics", arXiv 2402.14740). An answer's
          baseline is the mean reward of the other answers to its prompt. kl_coefficient times log(policy / reference),
          summed over the answer's tokens, is taken off its reward, as in PPO.
    grpo  Group relative policy optimization (Shao et al., "DeepSeekMath", arXiv 2402.03300). An answer's advantage is
          its reward less the mean of its prompt's answers, divided by their standard deviation; the KL penalty is part
          of the loss, token by token. Every token of a batch has the same weight (the loss of DAPO, arXiv 2503.14476),
          since GRPO's own mean over answers favors long bad ones.
    dpo   Direct preference optimization (Rafailov et al., arXiv 2305.18290) on preference pairs: nothing is sampled and
          the reward model teaches nothing. kl_coefficient is the paper's beta.

The paper uses PPO with unmodified TRL. TRL 1.x has no `PPOTrainer` any more; RLOO, its successor for a reward model,
drops PPO's value network. GRPO and DPO are for comparison and for those who know that they want them.

The policy continues the SFT adapter, and the reference is a frozen copy of that adapter, which TRL keeps as a second
adapter named `ref` on the same base weights. So the result is one adapter for the base model itself:
`PeftModel.from_pretrained(base, folder)` is the aligned policy, without merging the SFT adapter first.

Whatever the method, some prompts are kept from training and the policy is measured at them, by `evaluate_policy`,
before training, after it and in between. SFT and the reward model may have seen these prompts; policy optimization has
not.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from dp_assets.alignment._trainer import common_arguments, conversation_ids, train_quietly, training_scope
from dp_assets.alignment.policy_figures import evaluate_policy
from dp_assets.alignment.record import Curve
from dp_assets.alignment.reward import score_answers
from dp_assets.alignment.settings import Method, RlhfSettings
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.progress import Advance

REFERENCE_ADAPTER = "ref"


@dataclass(frozen=True)
class RlhfTraining:
    """The policy in evaluation mode, and what `record` says of `curve`, `figures` and `evaluations`."""

    model: PeftModel
    curve: Curve
    figures: dict[str, float]
    evaluations: Curve


@dataclass(frozen=True)
class _Task:
    """A method's trainer, what it trains on, and its settings besides those that all have."""

    trainer: type
    config: type
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    batch_size: int
    figures: dict[str, str]
    arguments: dict[str, Any] = field(default_factory=dict)


def train_policy(
    policy_model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: nn.Module,
    prompts: Sequence[str],
    pairs: pl.DataFrame,
    settings: RlhfSettings,
    *,
    advance: Advance,
) -> RlhfTraining:
    """Train the adapter of `policy_model` further, `advance(1)` after each of `steps` optimizer steps.

    Args:
      policy_model: the base model with the SFT adapter, trainable; it is changed in place and returned.
      reward_model: a sequence classifier with one output, in evaluation mode. With DPO it only measures.
      prompts: instructions; those of more than `max_prompt_tokens` tokens, with the text around them, are left out.
      pairs: columns `prompt`, `chosen`, `rejected`; DPO trains on them, the others do not look at them. Pairs with a
        conversation of more than `max_prompt_tokens + max_new_tokens` tokens are left out, as are those whose prompt
        the policy is measured at.
      settings: see `RlhfSettings`.

    Raises:
      ValueError: too few prompts or pairs are short enough.
    """
    training_prompts, measured_at = _split_prompts(prompts, tokenizer, settings)
    if settings.method == "dpo":
        choices = pairs.select("prompt", "chosen", "rejected").iter_rows()
        task = _task_on_pairs([pair for pair in choices if pair[0] not in measured_at], tokenizer, settings)
    else:
        task = _task_on_prompts(training_prompts, settings, reward=_reward_function(reward_model, tokenizer))
    measurements = _Measurements(
        partial(
            evaluate_policy,
            policy_model,
            tokenizer,
            reward_model,
            measured_at,
            settings.parameters,
            reference_adapter=REFERENCE_ADAPTER,
        ),
        due=_measured_after(settings),
    )
    with training_scope(policy_model.get_base_model()) as folder:
        trainer = task.trainer(
            model=policy_model,
            args=task.config(
                **common_arguments(
                    folder,
                    device=policy_model.device,
                    learning_rate=settings.learning_rate,
                    batch_size=task.batch_size,
                    seed=settings.seed,
                ),
                max_steps=settings.steps,
                beta=settings.kl_coefficient,
                **task.settings,
            ),
            train_dataset=Dataset.from_list(task.rows),
            processing_class=tokenizer,
            callbacks=[measurements],
            **task.arguments,
        )
        try:
            curve = train_quietly(trainer, advance=advance, figures=task.figures)
        finally:
            policy_model.delete_adapter(REFERENCE_ADAPTER)
    rows = pairs.height if settings.method == "dpo" else len(prompts)
    figures = {"rows_trained_on": float(len(task.rows)), "rows_left_out": float(rows - len(task.rows))}
    return RlhfTraining(policy_model, curve, figures, measurements.points)


def _measured_after(settings: RlhfSettings) -> set[int]:
    """After how many steps the policy is measured: before, after, and evenly between."""
    last = settings.evaluations - 1
    return {round(number * settings.steps / last) for number in range(settings.evaluations)}


def _task_on_prompts(prompts: Sequence[str], settings: RlhfSettings, *, reward: Callable[..., list[float]]) -> _Task:
    if len(prompts) < settings.prompts_per_step:
        raise ValueError(
            f"{len(prompts)} prompts are within max_prompt_tokens besides the evaluation_prompts, but a step takes"
            f" prompts_per_step = {settings.prompts_per_step}; raise max_prompt_tokens, lower prompts_per_step or"
            " evaluation_prompts, or pass more prompts"
        )
    trainer, config, of_the_method = SAMPLING_METHODS[settings.method]
    sampling = {
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
    }
    return _Task(
        trainer=trainer,
        config=config,
        settings=sampling | of_the_method,
        rows=[{"prompt": prompt} for prompt in prompts],
        batch_size=settings.prompts_per_step * settings.num_generations,
        figures={"loss": "loss", "reward": "reward", "kl": "kl", "completions/mean_length": "completion_length"},
        arguments={"reward_funcs": reward},
    )


def _task_on_pairs(
    pairs: Iterable[tuple[str, str, str]], tokenizer: PreTrainedTokenizerBase, settings: RlhfSettings
) -> _Task:
    """A cut answer is a worse one, so pairs that are too long are left out whole."""
    max_tokens = settings.max_prompt_tokens + settings.max_new_tokens
    batch_size = settings.prompts_per_step
    rows = []
    for prompt, chosen, rejected in pairs:
        prompt_ids, chosen_ids = conversation_ids(tokenizer, prompt, chosen)
        _, rejected_ids = conversation_ids(tokenizer, prompt, rejected)
        if len(prompt_ids) + max(len(chosen_ids), len(rejected_ids)) <= max_tokens:
            rows.append({"prompt_ids": prompt_ids, "chosen_ids": chosen_ids, "rejected_ids": rejected_ids})
    if len(rows) < batch_size:
        raise ValueError(
            f"{len(rows)} preference pairs are within max_prompt_tokens + max_new_tokens = {max_tokens} tokens and have"
            f" none of the evaluation_prompts, but a step of dpo takes prompts_per_step = {batch_size}; make more"
            " preference pairs, lower prompts_per_step or evaluation_prompts, or raise max_new_tokens"
        )
    return _Task(
        trainer=_DpoTrainer,
        config=DPOConfig,
        # A pass over the pairs ends before a batch that would be smaller than the others.
        settings={"loss_type": ["sigmoid"], "max_length": None, "dataloader_drop_last": True},
        rows=rows,
        batch_size=batch_size,
        figures={"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"},
    )


class _OwnPrompts:
    """TRL would apply the chat template in its own way; the policy shall see the prompt that answers come from."""

    processing_class: PreTrainedTokenizerBase

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [answer_prompt_ids(self.processing_class, prompt) for prompt in prompts], None, {}


class _RlooTrainer(_OwnPrompts, RLOOTrainer):  # type: ignore[misc]
    pass


class _GrpoTrainer(_OwnPrompts, GRPOTrainer):  # type: ignore[misc]
    pass


class _DpoTrainer(DPOTrainer):  # type: ignore[misc]
    """The same for pairs, which come here as token ids."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


# What a trainer would take from TRL's defaults is given where it decides the method.
SAMPLING_METHODS: dict[Method, tuple[type, type, dict[str, Any]]] = {
    "rloo": (_RlooTrainer, RLOOConfig, {}),
    "grpo": (_GrpoTrainer, GRPOConfig, {"loss_type": "dapo", "scale_rewards": "group"}),
}


class _Measurements(TrainerCallback):  # type: ignore[misc]
    """Measures the policy when so many steps are done as `due` says; one entry of `points` each."""

    def __init__(self, measure: Callable[[], dict[str, float]], *, due: Set[int]) -> None:
        self._measure, self._due = measure, due
        self.points: Curve = []

    def on_train_begin(self, _: object, state: Any, *__: object, **___: object) -> None:
        self._measure_if_due(state.global_step)

    def on_step_end(self, _: object, state: Any, *__: object, **___: object) -> None:
        self._measure_if_due(state.global_step)

    def _measure_if_due(self, steps_done: int) -> None:
        if steps_done in self._due:
            self.points.append({"step": steps_done, **self._measure()})


def _reward_function(reward_model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[float]]:
    """The reward model as TRL calls it, with one prompt for each completion and figures that are not needed here."""

    def reward(*, prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return score_answers(reward_model, tokenizer, prompts=prompts, answers=completions)

    return reward


def _split_prompts(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: RlhfSettings
) -> tuple[list[str], list[str]]:
    """The prompts that are short enough: those to train on, and others to measure the policy at.

    The latter are drawn from the seed, so they are the same for every method.
    """
    short = [prompt for prompt in prompts if len(answer_prompt_ids(tokenizer, prompt)) <= settings.max_prompt_tokens]
    different = list(dict.fromkeys(short))
    held_out = settings.evaluation_prompts
    if len(different) < held_out:
        raise ValueError(
            f"{len(different)} prompts are within max_prompt_tokens, but the policy is measured at evaluation_prompts ="
            f" {held_out}; raise max_prompt_tokens, lower evaluation_prompts or pass more prompts"
        )
    measured_at = [
        different[place] for place in np.random.default_rng(settings.seed).permutation(len(different))[:held_out]
    ]
    return [prompt for prompt in short if prompt not in set(measured_at)], measured_at
