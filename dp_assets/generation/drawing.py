"""Drawing texts by public seeds: the synthetic pool, more of it for short bins, and the baseline of epsilon zero.

The baseline samples user turns from the public base model by its open user turn, without any private training (Xu et
al., "Magpie", arXiv 2406.08464). Private training has to beat it to have earned its budget.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import attach_adapter
from dp_assets.generation.prompts import generator_prompt_ids
from dp_assets.generation.sampling import Engine, deduplicate, sample_instructions
from dp_assets.generation.settings import GeneratorPrompt
from dp_assets.generation.steering import Steering, sample_steered
from dp_assets.progress import Advance, progress, silent

Loaded = tuple[PreTrainedModel | Engine, PreTrainedTokenizerBase]
LoadModel = Callable[[], Loaded]

SAMPLES_A_SHARD = 4096
"""What a stopped run may lose. A shard is drawn on its own, so its last texts leave slots empty: few, at this size."""

DIGEST_BYTES = 16


class Shards(Protocol):
    """Where finished shards are kept."""

    def found(self, name: str) -> pl.LazyFrame | None:
        """The rows of a finished shard, None if it is not finished."""

    def kept(self, name: str, rows: pl.DataFrame) -> pl.LazyFrame:
        """Keep a finished shard, and return its rows as stored."""


def with_adapter(
    load_model: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]], adapter: Adapter
) -> LoadModel:
    """Loads the base model and folds `adapter` into its weights."""

    def load() -> Loaded:
        base, tokenizer = load_model()
        return attach_adapter(base, adapter).merge_and_unload(), tokenizer

    return load


def sample_pool(load_generator: LoadModel, *, shards: Shards, num_samples: int, **sampling: Any) -> pl.LazyFrame:
    """Distinct texts of the generator: columns `text`, `num_tokens`, `finished`.

    Shards that are there already are taken as they are, and the model is loaded only if one is missing. A shard is a
    function of the settings, its number and the texts before it, so a run that was stopped ends with the same pool.
    Memory holds the samples of one shard, and a digest of every text. `sampling` are the prompt and the other arguments
    of `sample_instructions`.
    """
    load = cache(load_generator)
    seen: set[bytes] = set()
    pool = []
    with progress("sampling the synthetic pool", num_samples, "samples") as advance:
        for start in range(0, num_samples, SAMPLES_A_SHARD):
            size = min(SAMPLES_A_SHARD, num_samples - start)
            name = f"samples-{start:09d}-{size}"
            shard = shards.found(name)
            if shard is None:
                drawn = deduplicate(_draw(load(), num_samples=size, first_number=start, advance=advance, **sampling))
                is_new = [digest not in seen for digest in _digests(drawn)]
                shard = shards.kept(name, drawn.filter(pl.Series(is_new, dtype=pl.Boolean)))
            else:
                advance(size)
            seen.update(_digests(shard.select("text").collect()))
            pool.append(shard)
    return pl.concat(pool)


def generator_sampler(
    load_generator: LoadModel, *, advance: Advance = silent, **sampling: Any
) -> Callable[[Sequence[Steering], int], list[str]]:
    """A function of (steerings, public seed) that draws a text for each from the generator, loaded at the first call.

    `advance` is told of the texts as they are drawn. `sampling` are the prompt and the other arguments of
    `sample_steered`.
    """
    load = cache(load_generator)

    def draw(steerings: Sequence[Steering], seed: int) -> list[str]:
        return sample_steered(*load(), steerings=steerings, seed=seed, advance=advance, **sampling)

    return draw


def sample_baseline(load_model: LoadModel, *, num_samples: int, **sampling: Any) -> list[str]:
    """Distinct texts of the base model alone, drawn as the pool is drawn from the generator, with the same settings."""
    with progress("sampling the baseline of epsilon zero", num_samples, "samples") as advance:
        drawn = _draw(load_model(), num_samples=num_samples, advance=advance, **sampling)
    return deduplicate(drawn)["text"].to_list()


def _draw(loaded: Loaded, *, prompt: GeneratorPrompt, **sampling: Any) -> pl.DataFrame:
    model, tokenizer = loaded
    return sample_instructions(model, tokenizer, prompt_ids=generator_prompt_ids(tokenizer, prompt=prompt), **sampling)


def _digests(samples: pl.DataFrame) -> list[bytes]:
    """128 bits of each text, by which it is known again."""
    return [hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for text in samples["text"]]
