"""Supervised fine-tuning of a causal language model on (instruction, response) pairs, by LoRA and TRL's `SFTTrainer`.

The loss is the mean negative log-likelihood of the response's tokens and of the end token after it, given the public
prompt text around the instruction; the instruction itself has no loss, as in the paper's released code, which also
trains LoRA only. The packaged model pads with its end token. Padding is told by position and never by id, so the end
token keeps its loss and the model learns to stop.
"""

from collections.abc import Iterator

import polars as pl
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from dp_assets.alignment._trainer import common_arguments, conversation_ids, train_quietly, training_scope
from dp_assets.alignment.record import Curve
from dp_assets.alignment.settings import AdapterTraining
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.progress import Advance

FIGURES = {"loss": "loss", "mean_token_accuracy": "token_accuracy"}
NO_LOSS = -100  # What torch's cross entropy ignores.


def train_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    settings: AdapterTraining,
    *,
    advance: Advance,
) -> tuple[PeftModel, Curve]:
    """Train a new LoRA adapter on `pairs` (columns `instruction`, `response`).

    `model` is wrapped in place: hand over one of your own. A conversation of more than `max_tokens` tokens loses its
    end, and is left out if nothing of the response remains. All `pairs` are trained on: whoever hands them over has
    limited them to `max_rows`. There are `epochs * ceil(rows / batch_size)` optimizer
    steps with a learning rate that falls linearly to zero, and `advance(1)` after each.

    Returns:
      The model with its adapter, in evaluation mode, and a curve of `step`, `loss` (nats a token) and `token_accuracy`.

    Raises:
      ValueError: no pair has a response within `max_tokens`.
    """
    rows = list(_labeled(pairs, tokenizer, settings.max_tokens))
    if not rows:
        raise ValueError("no pair has a response within max_tokens; raise max_tokens or annotate more instructions")
    with training_scope(model) as folder:
        trainer = SFTTrainer(
            model=new_adapter_model(
                model,
                rank=settings.rank,
                alpha=settings.alpha,
                target_modules=settings.target_modules,
                layers=None,
                seed=settings.seed,
            ),
            args=SFTConfig(
                **common_arguments(
                    folder,
                    device=model.device,
                    learning_rate=settings.learning_rate,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                ),
                num_train_epochs=settings.epochs,
                max_length=None,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        curve = train_quietly(trainer, advance=advance, figures=FIGURES)
    return trainer.model, curve


def _labeled(
    pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Iterator[dict[str, list[int]]]:
    """Token ids and labels. A response that is cut has no end token, so nobody learns to stop in mid-sentence."""
    for instruction, response in pairs.select("instruction", "response").iter_rows():
        prompt_ids, response_ids = conversation_ids(tokenizer, instruction, response)
        if len(prompt_ids) < max_tokens:
            yield {
                "input_ids": (prompt_ids + response_ids)[:max_tokens],
                "labels": ([NO_LOSS] * len(prompt_ids) + response_ids)[:max_tokens],
            }
