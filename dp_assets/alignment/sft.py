"""Supervised fine-tuning of a causal language model on (instruction, response) pairs, by LoRA and TRL's `SFTTrainer`.

The loss is the mean negative log-likelihood of the response's tokens and of the end token after it, given the
instruction and the public prompt text around it. The instruction itself has no loss, as in the paper's released code,
which also trains LoRA only. The packaged model pads with its end token. Padding is identified by position and never by
id, so the end token has a loss and the model learns to stop.
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
NO_LOSS = -100  # the label that torch's cross entropy ignores


def train_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    settings: AdapterTraining,
    *,
    advance: Advance,
) -> tuple[PeftModel, Curve]:
    """Train a new LoRA adapter on pairs of instruction and response.

    - A conversation of more than `max_tokens` tokens is truncated, and left out if nothing of the response remains.
    - There are `epochs * ceil(rows / batch_size)` optimizer steps, with a learning rate that falls linearly to zero.

    Args:
      model: the base model, which is changed in place, so the caller must not share it.
      tokenizer: its tokenizer.
      pairs: columns `instruction`, `response`. All are trained on; the caller applies `max_rows`.
      settings: the settings of the training.
      advance: called with 1 after every optimizer step.

    Returns:
      The model with its adapter, in evaluation mode, and a curve of `step`, `loss` (nats per token) and
      `token_accuracy`.

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
    """Yield token ids and labels. A truncated response has no end token, so the model learns no early stop from it."""
    for instruction, response in pairs.select("instruction", "response").iter_rows():
        prompt_ids, response_ids = conversation_ids(tokenizer, instruction, response)
        if len(prompt_ids) < max_tokens:
            yield {
                "input_ids": (prompt_ids + response_ids)[:max_tokens],
                "labels": ([NO_LOSS] * len(prompt_ids) + response_ids)[:max_tokens],
            }
