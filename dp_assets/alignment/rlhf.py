"""Policy optimization by one of three methods of TRL, over the same prompts, with the same evaluation.

    rloo  REINFORCE with a leave-one-out baseline (Ahmadian et al., "Back to Basics", arXiv 2402.14740). The baseline of
          an answer is the mean reward of the other answers to its prompt. kl_coefficient times log(policy / reference),
          summed over the answer's tokens, is subtracted from its reward, as in PPO.
    grpo  Group relative policy optimization (Shao et al., "DeepSeekMath", arXiv 2402.03300). The advantage of an answer
          is its reward minus the mean of its prompt's answers, divided by their standard deviation. The KL penalty is
          part of the loss, token by token. Every token of a batch has the same weight (the loss of DAPO, arXiv
          2503.14476), because GRPO's own mean over answers favors long bad answers.
    dpo   Direct preference optimization (Rafailov et al., arXiv 2305.18290) on preference pairs. Nothing is sampled,
          and the reward model is not used for training. kl_coefficient is the paper's beta.

The paper uses PPO with unmodified TRL. TRL 1.x no longer has a `PPOTrainer`; RLOO, its successor for a reward model,
drops PPO's value network. GRPO and DPO are available for comparison.

The policy continues the SFT adapter. The reference is a frozen copy of that adapter, which TRL keeps as a second
adapter named `ref` on the same base weights. So the result is one adapter for the base model itself:
`PeftModel.from_pretrained(base, folder)` is the aligned policy, without merging the SFT adapter first.

With every method, some prompts are held out, and `evaluate_policy` measures the policy at them before, during and after
training. SFT and the reward model may have seen these prompts; policy optimization has not.
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
    """The policy in evaluation mode, with `curve`, `figures` and `evaluations` as the module `record` defines them."""

    model: PeftModel
    curve: Curve
    figures: dict[str, float]
    evaluations: Curve


@dataclass(frozen=True)
class _Task:
    """The trainer of a method, the rows that it trains on, and its own settings in addition to the common ones."""

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
    """Continue the training of the adapter of `policy_model` for `steps` optimizer steps.

    Args:
      policy_model: the base model with the SFT adapter, trainable; it is changed in place and returned.
      tokenizer: the tokenizer of the base model.
      reward_model: a sequence classifier with one output, in evaluation mode. With DPO it is used for evaluation only.
      prompts: instructions; those with more than `max_prompt_tokens` tokens, including the prompt text around them, are
        left out.
      pairs: columns `prompt`, `chosen`, `rejected`; used by DPO only. Pairs with a conversation of more than
        `max_prompt_tokens + max_new_tokens` tokens are left out, as are those of held-out prompts.
      settings: see `RlhfSettings`.
      advance: called with 1 after every optimizer step.

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
    """Return after how many steps the policy is evaluated: before training, after it, and evenly in between."""
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
    """Return the task of DPO. Pairs that are too long are left out, because a truncated answer is a worse one."""
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
        # An epoch ends before a last batch that would be smaller than the others.
        settings={"loss_type": ["sigmoid"], "max_length": None, "dataloader_drop_last": True},
        rows=rows,
        batch_size=batch_size,
        figures={"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"},
    )


class _OwnPrompts:
    """Tokenizes prompts as `generation` does for answers, because TRL would apply the chat template in its own way."""

    processing_class: PreTrainedTokenizerBase

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [answer_prompt_ids(self.processing_class, prompt) for prompt in prompts], None, {}


class _RlooTrainer(_OwnPrompts, RLOOTrainer):  # type: ignore[misc]
    pass


class _GrpoTrainer(_OwnPrompts, GRPOTrainer):  # type: ignore[misc]
    pass


class _DpoTrainer(DPOTrainer):  # type: ignore[misc]
    """Uses pairs as they are, because they are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


# Options that define the method are set here, so that they do not depend on TRL's defaults.
SAMPLING_METHODS: dict[Method, tuple[type, type, dict[str, Any]]] = {
    "rloo": (_RlooTrainer, RLOOConfig, {}),
    "grpo": (_GrpoTrainer, GRPOConfig, {"loss_type": "dapo", "scale_rewards": "group"}),
}


class _Measurements(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy after each number of steps in `due`, and appends an entry to `points` each time."""

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
    """Return the reward function for TRL, which passes one prompt per completion and arguments that are ignored."""

    def reward(*, prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return score_answers(reward_model, tokenizer, prompts=prompts, answers=completions)

    return reward


def _split_prompts(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: RlhfSettings
) -> tuple[list[str], list[str]]:
    """Return the prompts to train on and the held-out prompts, all of them short enough.

    The held-out prompts are drawn from the seed, so they are the same for every method.
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
