"""Figures for a planner that need the language model: the size of its adapter, and its training speed on this machine.

The size needs no weights: the model is built from its configuration on torch's meta device, which holds shapes only.
The speed is measured on public rows with the loaded model, and never on rows of the corpus.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dp_assets.settings.profile import Profile
from resources.models.loaders import LanguageModel
from resources.storage.zones import data_home

if TYPE_CHECKING:
    from dp_assets.dpsgd.packing import TokenRow

PUBLIC_TEXT = "Please explain, step by step and with an example, how I can do this at home without special tools. "
TIMED_MICRO_BATCHES = 2


@dataclass(frozen=True)
class Speed:
    """The measured speed of clipped sums on this machine."""

    tokens_per_second: float
    tokens_a_row: int

    def seconds(self, *, steps: int, expected_batch: float) -> float:
        """Return the seconds of a whole training if every row had the greatest length, without drawing the noise."""
        return steps * expected_batch * self.tokens_a_row / self.tokens_per_second


def num_adapter_parameters(profile: Profile) -> int:
    """Return the number of parameters that DP-SGD of this profile trains. Needs no weights, downloads, or writes.

    Raises:
      ModelUnavailable: the model's configuration is not on this machine.
      ValueError: the profile's adapter does not fit the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from dp_assets.dpsgd.clipping import adapter_parameters
    from dp_assets.generation.generator import with_new_adapter

    config = language_model_of(profile).load_config()
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    model = with_new_adapter(base, profile.generator)
    return sum(parameter.numel() for parameter in adapter_parameters(model).values())


def measure_speed(profile: Profile) -> Speed:
    """Time clipped sums of public rows of the greatest length. Loads the model, and converts it on first use.

    Raises:
      ModelUnavailable: the model is neither on this machine nor downloadable.
    """
    from dp_assets.dpsgd.clipping import Clipping, clipped_sum
    from dp_assets.generation.generator import with_new_adapter

    settings = profile.generator
    base, tokenizer = language_model_of(profile).load(dtype=settings.dtype)
    model = with_new_adapter(base, settings)
    row = _public_row(tokenizer, profile)
    a_micro_batch = max(1, settings.tokens_per_micro_batch // len(row))

    def run(num_rows: int) -> float:
        started = time.perf_counter()
        total, _ = clipped_sum(
            model,
            [row] * num_rows,
            [str(index) for index in range(num_rows)],
            Clipping(settings.l2_clip_norm, settings.loss_normaliser, settings.tokens_per_micro_batch),
        )
        _ = {name: tensor.cpu() for name, tensor in total.items()}  # waits for the device
        return time.perf_counter() - started

    run(a_micro_batch)  # the first pass also allocates and compiles
    num_rows = TIMED_MICRO_BATCHES * a_micro_batch
    return Speed(tokens_per_second=num_rows * len(row) / run(num_rows), tokens_a_row=len(row))


def language_model_of(profile: Profile) -> LanguageModel:
    """Return the language model that a profile names."""
    return LanguageModel(
        model=profile.language_model,
        device=profile.device,
        dtype=profile.dtype,
        cache_root=str(data_home() / "models"),
    )


def _public_row(tokenizer: Any, profile: Profile) -> "TokenRow":
    """Return a row of public text after the generator's prompt, as long as the profile allows."""
    from dp_assets.dpsgd.packing import TokenRow
    from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids

    settings = profile.generator
    target = encode_instruction(tokenizer, PUBLIC_TEXT * settings.max_tokens, max_tokens=settings.max_tokens)
    return TokenRow(tuple(generator_prompt_ids(tokenizer, prompt=settings.prompt)), tuple(target))
