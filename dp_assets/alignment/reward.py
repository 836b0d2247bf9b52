"""A reward model: the language model's body with a scalar head, trained on preference pairs by LoRA and TRL.

The loss is -log sigmoid(r(chosen) - r(rejected)), the Bradley-Terry model of a choice between two answers. Only
differences of scores for the same prompt are meaningful; level and scale are arbitrary. The scores mean no more than
the pairs can teach (see `preferences`). The held-out accuracy says how well the pairs were learned, not how good they
are.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from dp_assets.alignment._trainer import common_arguments, conversation_ids, train_quietly, training_scope
from dp_assets.alignment.record import Curve
from dp_assets.alignment.settings import RewardSettings
from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import attach_adapter
from dp_assets.generation.seeding import public_seed
from dp_assets.progress import Advance

HEAD = "score"
FIGURES = {"loss": "loss", "accuracy": "accuracy", "margin": "margin"}
# Bounds memory. Scoring keeps no activations, so larger batches would not be faster.
SCORING_BATCH_SIZE = 16


@dataclass(frozen=True)
class RewardTraining:
    """A trained reward model.

    `curve` has `step`, `loss`, `accuracy` and `margin` of the training batches. `figures` counts the pairs and measures
    the held-out ones.
    """

    model: PeftModel
    curve: Curve
    figures: dict[str, float]


def train_reward_model(
    causal_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    settings: RewardSettings,
    *,
    advance: Advance,
) -> RewardTraining:
    """Train a reward model on preference pairs.

    - Pairs with a conversation of more than `max_tokens` tokens are left out, because a truncated answer is a worse
      one.
    - `held_out_fraction` of the prompts, at least one, are held out with all their pairs.
    - `causal_model` is not changed.

    Args:
      causal_model: the language model whose body is copied.
      tokenizer: its tokenizer.
      pairs: columns `prompt`, `chosen`, `rejected`, `rejected_by`.
      settings: the settings of the training.
      advance: called with 1 after every optimizer step.

    Returns:
      The model in evaluation mode and, in `figures`, `pairs_trained`, `pairs_too_long`, `held_out_pairs`,
      `held_out_accuracy` (the fraction of pairs whose chosen answer scores higher), `held_out_margin` (mean score
      difference) and the accuracy by rule.

    Raises:
      ValueError: fewer than two prompts have a pair that is short enough.
    """
    short = _not_longer_than(pairs, tokenizer, settings.max_tokens)
    training, held_out = _split_by_prompt(short, held_out_fraction=settings.held_out_fraction, seed=settings.seed)
    classifier = classifier_from_causal(causal_model, tokenizer, seed=settings.seed)
    with training_scope(classifier) as folder:
        trainer = RewardTrainer(
            model=classifier,
            args=RewardConfig(
                **common_arguments(
                    folder,
                    device=causal_model.device,
                    learning_rate=settings.learning_rate,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                ),
                num_train_epochs=settings.epochs,
                max_length=None,
            ),
            train_dataset=Dataset.from_list(_choices(training, tokenizer)),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                target_modules=list(settings.target_modules),
                task_type="SEQ_CLS",
                modules_to_save=[HEAD],
            ),
        )
        curve = train_quietly(trainer, advance=advance, figures=FIGURES)
    counts = {"pairs_trained": float(training.height), "pairs_too_long": float(pairs.height - short.height)}
    return RewardTraining(trainer.model, curve, counts | _held_out_figures(trainer.model, tokenizer, held_out))


def classifier_from_causal(
    causal_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> PreTrainedModel:
    """Return a sequence classifier with one output: a copy of the body of `causal_model`, and a head drawn from `seed`.

    - The head is float32.
    - The score is read at the last token that is not the padding token. If padding and end token are the same, as in
      the packaged model, that is the answer's last token instead of the end token, in training and in scoring.
    """
    config = copy.deepcopy(causal_model.config)
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id
    with public_seed(seed):
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=causal_model.dtype)
    classifier.base_model.load_state_dict(causal_model.base_model.state_dict())
    # In bfloat16, rounding would discard most updates of the head.
    classifier.score.float()
    classifier.score.register_forward_pre_hook(_cast_to_weight)
    return classifier.to(causal_model.device).eval()


def _cast_to_weight(head: nn.Linear, hidden_states: tuple[Tensor]) -> tuple[Tensor]:
    return (hidden_states[0].to(head.weight.dtype),)


def attach_reward_adapter(
    causal_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, adapter: Adapter
) -> PeftModel:
    """Return the reward model of `adapter`, frozen and in evaluation mode. `causal_model` is not changed."""
    # The adapter contains the trained head, so the head drawn here is never used.
    return attach_adapter(classifier_from_causal(causal_model, tokenizer, seed=0), adapter, trainable=False).eval()


def score_answers(
    reward_model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, prompts: Sequence[str], answers: Sequence[str]
) -> list[float]:
    """Return the reward of each answer to its prompt, both in one conversation as in training."""
    conversations = [_token_ids(tokenizer, *turns) for turns in zip(prompts, answers, strict=True)]
    device = next(reward_model.parameters()).device
    scores: list[float] = []
    for start in range(0, len(conversations), SCORING_BATCH_SIZE):
        batch = tokenizer.pad(
            {"input_ids": conversations[start : start + SCORING_BATCH_SIZE]}, padding_side="right", return_tensors="pt"
        )
        with torch.inference_mode():
            scores.extend(reward_model(**batch.to(device)).logits[:, 0].tolist())
    return scores


def _token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> list[int]:
    prompt_ids, answer_ids = conversation_ids(tokenizer, prompt, answer)
    return prompt_ids + answer_ids


def _not_longer_than(pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> pl.DataFrame:
    fits = [
        all(len(_token_ids(tokenizer, prompt, answer)) <= max_tokens for answer in answers)
        for prompt, *answers in pairs.select("prompt", "chosen", "rejected").iter_rows()
    ]
    return pairs.filter(pl.Series(fits, dtype=pl.Boolean))


def _split_by_prompt(pairs: pl.DataFrame, *, held_out_fraction: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return training and held-out pairs. They share no prompt, because another pair would leak its chosen answer."""
    prompts = pairs["prompt"].unique().sort()
    if len(prompts) < 2:
        raise ValueError(
            "a reward model needs pairs of at least two prompts within max_tokens, one of them held out;"
            " make more preference pairs or raise max_tokens"
        )
    held_out_count = min(max(1, round(held_out_fraction * len(prompts))), len(prompts) - 1)
    held_out_prompts = prompts[np.random.default_rng(seed).permutation(len(prompts))[:held_out_count]]
    held_out = pl.col("prompt").is_in(held_out_prompts.implode())
    return pairs.filter(~held_out), pairs.filter(held_out)


def _choices(pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, list[int]]]:
    return [
        {
            "chosen_ids": _token_ids(tokenizer, prompt, chosen),
            "rejected_ids": _token_ids(tokenizer, prompt, rejected),
        }
        for prompt, chosen, rejected in pairs.select("prompt", "chosen", "rejected").iter_rows()
    ]


def _held_out_figures(
    reward_model: PeftModel, tokenizer: PreTrainedTokenizerBase, pairs: pl.DataFrame
) -> dict[str, float]:
    chosen, rejected = (
        score_answers(reward_model, tokenizer, prompts=pairs["prompt"].to_list(), answers=pairs[side].to_list())
        for side in ("chosen", "rejected")
    )
    margins = np.asarray(chosen) - np.asarray(rejected)
    rules = pairs["rejected_by"].to_numpy()
    by_rule = {f"held_out_accuracy_{rule}": float((margins[rules == rule] > 0).mean()) for rule in np.unique(rules)}
    return {
        "held_out_pairs": float(pairs.height),
        "held_out_accuracy": float((margins > 0).mean()),
        "held_out_margin": float(margins.mean()),
        **by_rule,
    }
