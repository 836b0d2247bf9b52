"""Common use of TRL's trainers: quiet, offline, seeded, and without side effects after training.

TRL writes checkpoints and model cards, prints its log, sends usage figures to the Hugging Face hub, seeds the global
generators and replaces `forward` on the model that it trains. Inside `training_scope` none of this outlives the
training. The trainers see released synthetic rows only, so progress and curves may be shown, and seeds are public.

A batch is one forward and backward pass, without gradient accumulation. On a GPU activations are recomputed in the
backward pass (activation checkpointing), because memory is scarce there. On a CPU time is.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub import constants as hub_constants
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from dp_assets.alignment.record import Curve
from dp_assets.generation.prompts import answer_prompt_ids, end_of_instruction_id
from dp_assets.progress import Advance

# Its environment variable is read only when huggingface_hub is first imported, which may have happened already.
hub_constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def training_scope(model: torch.nn.Module) -> Iterator[str]:
    """Yield a temporary folder, and undo afterwards what a trainer does to the process and to `model.forward`.

    `model` is the Transformers model itself, not the PEFT wrapper around it.
    """
    forward_before = vars(model).get("forward")
    with TemporaryDirectory() as folder, _random_state_kept(), _no_dataset_bars():
        try:
            yield folder
        finally:
            vars(model).pop("forward", None)
            if forward_before is not None:
                model.forward = forward_before


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the global random generators of Python, NumPy and torch, because trainers seed all of them."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()), device_type="cuda"):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def _no_dataset_bars() -> Iterator[None]:
    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()


def common_arguments(
    folder: str, *, device: torch.device, learning_rate: float, batch_size: int, seed: int
) -> dict[str, Any]:
    """Return the training arguments that all trainers share. Every step is logged, for the curve.

    Args:
      folder: the trainer's output folder.
      device: the device of the model.
      learning_rate: the initial learning rate.
      batch_size: rows per step.
      seed: the public seed.
    """
    on_gpu = device.type != "cpu"
    return {
        "output_dir": folder,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "seed": seed,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        # No autocasting: the base model keeps its own precision, and its adapter is float32.
        "bf16": False,
        "activation_checkpointing": on_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would log an earlier loss instead of one that is not finite
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def conversation_ids(tokenizer: PreTrainedTokenizerBase, instruction: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the token ids of a chat up to the open assistant turn, and those of the answer with the end token.

    `generation` samples answers from the same prompt ids, so a model is trained on exactly the prompt that it will see.
    """
    answer_ids = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return answer_prompt_ids(tokenizer, instruction), [*answer_ids, end_of_instruction_id(tokenizer)]


def train_quietly(trainer: Any, *, advance: Advance, figures: Mapping[str, str]) -> Curve:
    """Train, calling `advance(1)` after every optimizer step.

    Returns:
      One entry per step with the key `step` and, under our names, the figures that the trainer logged. `figures` maps
      TRL's name of a figure to ours. TRL's final summary has none of them and is left out.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_AfterEachStep(advance))
    trainer.train()
    trainer.model.eval()
    return [
        {"step": entry["step"], **{ours: entry[theirs] for theirs, ours in figures.items()}}
        for entry in trainer.state.log_history
        if all(theirs in entry for theirs in figures)
    ]


class _AfterEachStep(TrainerCallback):  # type: ignore[misc]
    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def on_step_end(self, *_: object, **__: object) -> None:
        self._advance(1)
