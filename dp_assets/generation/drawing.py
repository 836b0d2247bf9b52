"""Drawing texts by public seeds: the synthetic pool, more of it for short bins, and the baseline of epsilon zero.

The baseline samples user turns from the public base model by its open user turn, without any private training (Xu et
al., "Magpie", arXiv 2406.08464). Private training has to beat it to have earned its budget.
"""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import attach_adapter
from dp_assets.generation.prompts import GeneratorPrompt, generator_prompt_ids
from dp_assets.generation.sampling import deduplicate, sample_instructions
from dp_assets.generation.steering import Steering, sample_steered
from dp_assets.progress import progress

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
LoadModel = Callable[[], Loaded]


def sample_pool(load_model: LoadModel, adapter: Adapter, **sampling: Any) -> pl.DataFrame:
    """Distinct texts of the generator: columns `text`, `num_tokens`, `finished`.

    `sampling` are the prompt and the other arguments of `sample_instructions`.
    """
    base, tokenizer = load_model()
    loaded = attach_adapter(base, adapter), tokenizer
    return deduplicate(_draw(loaded, label="sampling the synthetic pool", **sampling))


def generator_sampler(
    load_model: LoadModel, adapter: Adapter, **sampling: Any
) -> Callable[[Sequence[Steering], int], list[str]]:
    """A function of (steerings, public seed) that draws a text for each from the generator, loaded at the first call.

    `sampling` are the prompt and the other arguments of `sample_steered`.
    """
    loaded: list[Loaded] = []

    def draw(steerings: Sequence[Steering], seed: int) -> list[str]:
        if not loaded:
            base, tokenizer = load_model()
            loaded.append((attach_adapter(base, adapter), tokenizer))
        with progress("topping up short bins", len(steerings), "samples") as advance:
            return sample_steered(*loaded[0], steerings=steerings, seed=seed, advance=advance, **sampling)

    return draw


def sample_baseline(load_model: LoadModel, **sampling: Any) -> list[str]:
    """Distinct texts of the base model alone, drawn as the pool is drawn from the generator, with the same settings."""
    drawn = _draw(load_model(), label="sampling the baseline of epsilon zero", **sampling)
    return deduplicate(drawn)["text"].to_list()


def _draw(loaded: Loaded, *, label: str, prompt: GeneratorPrompt, num_samples: int, **sampling: Any) -> pl.DataFrame:
    """Samples under a progress line; `sampling` are the other arguments of `sample_instructions`."""
    model, tokenizer = loaded
    prompt_ids = generator_prompt_ids(tokenizer, prompt=prompt)
    with progress(label, num_samples, "samples") as advance:
        return sample_instructions(
            model, tokenizer, prompt_ids=prompt_ids, num_samples=num_samples, advance=advance, **sampling
        )
