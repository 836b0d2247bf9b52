"""One tiny step of each training on public text, before anything is charged.

The trainings are those of the run, with its settings but for their amounts: one row a step, few tokens to write. They
change the model that is handed over, so it should be a fresh one. What a step with all rows needs in memory or time is
left to the run.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.alignment.record import Curve
from dp_assets.alignment.reward import classifier_from_causal, train_reward_model
from dp_assets.alignment.rlhf import train_policy
from dp_assets.alignment.sft import train_sft
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.fitness import (
    UnfitModel,
    explained,
    require_layers,
    require_length,
    require_prompts,
    require_vocabulary,
)
from dp_assets.progress import silent

PAIRS = pl.DataFrame({"instruction": ["Why?", "How?"], "response": ["So.", "Thus."]})
CHOICES = pl.DataFrame(
    {"prompt": ["Why?", "How?"], "chosen": ["So.", "Thus."], "rejected": ["No.", "Not."], "rejected_by": ["cut", "cut"]}
)
FEW_TOKENS = 2
ONE_STEP: dict[str, Any] = {"batch_size": 1, "epochs": 1}


def try_sft(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> None:
    """One step of supervised fine-tuning. `settings` are the arguments of `train_sft`.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    _require_model(model, tokenizer, setting="sft", **settings)
    with _trained("sft"):
        _, curve = train_sft(model, tokenizer, PAIRS.head(1), advance=silent, **settings | ONE_STEP)
        _require_finite(curve)


def try_reward(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> None:
    """One step of the reward model on one of two pairs. `settings` are the arguments of `train_reward_model`.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    _require_model(model, tokenizer, setting="reward", **settings)
    require_layers(model.base_model, settings["target_modules"], setting="reward.target_modules")  # it has no such head
    with _trained("reward"):
        training = train_reward_model(model, tokenizer, CHOICES, advance=silent, **settings | ONE_STEP)
        _require_finite(training.curve)


def try_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sft: Mapping[str, Any],
    max_prompt_tokens: int,
    max_new_tokens: int,
    **settings: Any,
) -> None:
    """One step of policy optimisation by the method of `settings`, the further arguments of `train_policy`.

    `sft` describes the adapter that the policy continues: rank, alpha and target modules. The reward model is new.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    require_layers(model, sft["target_modules"], setting="sft.target_modules")
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    require_length(model, max_prompt_tokens + max_new_tokens, setting="rlhf.max_new_tokens")
    few = {"steps": 1, "prompts_per_step": 1, "num_generations": 2, "evaluation_prompts": 1, "evaluations": 2}
    with _trained("rlhf"):
        scorer = classifier_from_causal(model, tokenizer, seed=settings["seed"])
        training = train_policy(
            new_adapter_model(model, layers=None, seed=settings["seed"], **sft),
            tokenizer,
            scorer,
            CHOICES["prompt"].to_list(),
            CHOICES,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=min(max_new_tokens, FEW_TOKENS),
            advance=silent,
            **settings | few,
        )
        _require_finite(training.curve)


def _trained(setting: str) -> AbstractContextManager[None]:
    return explained(f"{setting}: a step on public text is not possible with language_model", or_any_error=True)


def _require_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    setting: str,
    target_modules: Sequence[str],
    max_tokens: int,
    **_: object,
) -> None:
    require_layers(model, target_modules, setting=f"{setting}.target_modules")
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    require_length(model, max_tokens, setting=f"{setting}.max_tokens")


def _require_finite(curve: Curve) -> None:
    if not curve or not all(isfinite(point["loss"]) for point in curve):
        raise UnfitModel("the loss of a public text is not finite; set dtype to float32, or choose another model")
