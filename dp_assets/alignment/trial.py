"""Trials of the trainings on released data: one tiny step each on public text, before anything is charged.

They use the code and the settings of the run, except amounts: one row per step and few new tokens. They change the
given model, so it must not be used otherwise. Memory and time of a full step are not tested.
"""

from contextlib import AbstractContextManager
from math import isfinite

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.alignment.record import Curve
from dp_assets.alignment.reward import classifier_from_causal, train_reward_model
from dp_assets.alignment.rlhf import train_policy
from dp_assets.alignment.settings import AdapterTraining, RewardSettings, RlhfSettings
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
ONE_STEP = {"batch_size": 1, "epochs": 1}
SMALLEST_STEP = {
    "steps": 1,
    "prompts_per_step": 1,
    "num_generations": 2,
    "evaluation_prompts": 1,
    "evaluations": 2,
}


def try_sft(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterTraining) -> None:
    """Try one step of supervised fine-tuning.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    _require_model(model, tokenizer, settings, group="sft")
    with _trained("sft"):
        _, curve = train_sft(model, tokenizer, PAIRS.head(1), settings.model_copy(update=ONE_STEP), advance=silent)
        _require_finite(curve)


def try_reward(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings) -> None:
    """Try one step of the reward model on one of two pairs; the other one is held out.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    _require_model(model, tokenizer, settings, group="reward")
    require_layers(model.base_model, settings.target_modules, setting="reward.target_modules")  # it has no such head
    with _trained("reward"):
        one_step = settings.model_copy(update=ONE_STEP)
        training = train_reward_model(model, tokenizer, CHOICES, one_step, advance=silent)
        _require_finite(training.curve)


def try_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RlhfSettings,
    *,
    sft: AdapterTraining,
) -> None:
    """Try one step of policy optimization with a new adapter, as `sft` describes it, and a new reward model.

    Raises:
      UnfitModel: the model cannot be trained with these settings.
    """
    require_layers(model, sft.target_modules, setting="sft.target_modules")
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    require_length(model, settings.max_prompt_tokens + settings.max_new_tokens, setting="rlhf.max_new_tokens")
    with _trained("rlhf"):
        scorer = classifier_from_causal(model, tokenizer, seed=settings.seed)
        policy = new_adapter_model(
            model,
            rank=sft.rank,
            alpha=sft.alpha,
            target_modules=sft.target_modules,
            layers=None,
            seed=settings.seed,
        )
        few_tokens = {"max_new_tokens": min(settings.max_new_tokens, FEW_TOKENS)}
        prompts, few = CHOICES["prompt"].to_list(), settings.model_copy(update=SMALLEST_STEP | few_tokens)
        training = train_policy(policy, tokenizer, scorer, prompts, CHOICES, few, advance=silent)
        _require_finite(training.curve)


def _trained(setting: str) -> AbstractContextManager[None]:
    return explained(f"{setting}: a step on public text is not possible with language_model", or_any_error=True)


def _require_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterTraining, *, group: str
) -> None:
    require_layers(model, settings.target_modules, setting=f"{group}.target_modules")
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    require_length(model, settings.max_tokens, setting=f"{group}.max_tokens")


def _require_finite(curve: Curve) -> None:
    if not curve or not all(isfinite(point["loss"]) for point in curve):
        raise UnfitModel("the loss of a public text is not finite; set dtype to float32, or choose another model")
