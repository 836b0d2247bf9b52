"""Sampling with public seeds: the synthetic pool, more texts for bins below their quota, and the baseline of epsilon 0.

The baseline samples user turns from the public base model after an open user turn, without any private training (Xu et
al., "Magpie", arXiv 2406.08464). Private training is worth its budget only if it beats this baseline.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import attach_adapter
from dp_assets.generation.prompts import generator_prompt_ids
from dp_assets.generation.sampling import Engine, deduplicate, sample_instructions
from dp_assets.generation.settings import SamplingSettings
from dp_assets.generation.steering import sample_steered
from dp_assets.progress import Advance, progress, silent
from dp_assets.vocabulary import Steering

Loaded = tuple[PreTrainedModel | Engine, PreTrainedTokenizerBase]
LoadModel = Callable[[], Loaded]

SAMPLES_A_SHARD = 4096
"""The most samples that a stopped run loses. Slots stay empty while the last texts of a shard are drawn, which costs
little at this size."""

DIGEST_BYTES = 16


class Shards(Protocol):
    """The store of finished shards."""

    def found(self, name: str) -> pl.LazyFrame | None:
        """Return the rows of a finished shard; None if it is not finished."""

    def kept(self, name: str, rows: pl.DataFrame) -> pl.LazyFrame:
        """Store a finished shard, and return its rows as stored."""


def with_adapter(
    load_model: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]], adapter: Adapter
) -> LoadModel:
    """Return a function that loads the base model and merges `adapter` into its weights."""

    def load() -> Loaded:
        base, tokenizer = load_model()
        return attach_adapter(base, adapter).merge_and_unload(), tokenizer

    return load


def sample_pool(load_generator: LoadModel, settings: SamplingSettings, *, shards: Shards) -> pl.LazyFrame:
    """Return distinct texts of the generator: columns `text`, `num_tokens`, `finished`.

    - Finished shards are reused, and the model is loaded only if one is missing.
    - A shard is a function of the settings, its number and the texts before it, so a run that was interrupted ends with
      the same pool.
    - Memory holds the samples of one shard, and a digest of every text.
    """
    load = cache(load_generator)
    seen: set[bytes] = set()
    pool = []
    with progress("sampling the synthetic pool", settings.num_samples, "samples") as advance:
        for start in range(0, settings.num_samples, SAMPLES_A_SHARD):
            size = min(SAMPLES_A_SHARD, settings.num_samples - start)
            name = f"samples-{start:09d}-{size}"
            shard = shards.found(name)
            if shard is None:
                drawn = deduplicate(_draw(load(), settings, num_samples=size, first_number=start, advance=advance))
                is_new = [digest not in seen for digest in _digests(drawn)]
                shard = shards.kept(name, drawn.filter(pl.Series(is_new, dtype=pl.Boolean)))
            else:
                advance(size)
            seen.update(_digests(shard.select("text").collect()))
            pool.append(shard)
    return pl.concat(pool)


def generator_sampler(
    load_generator: LoadModel, settings: SamplingSettings, *, advance: Advance = silent
) -> Callable[[Sequence[Steering], int], list[str]]:
    """Return a function of (steerings, public seed) that samples one text for each steering from the generator.

    The generator is loaded at the first call. The number of texts and the seed are those of the call, not of the
    settings. `advance` is called with the number of texts that ended.
    """
    load = cache(load_generator)

    def draw(steerings: Sequence[Steering], seed: int) -> list[str]:
        return sample_steered(
            *load(),
            prompt=settings.prompt,
            steerings=steerings,
            sampling=replace(settings.parameters, seed=seed),
            batch_size=settings.batch_size,
            advance=advance,
        )

    return draw


def sample_baseline(load_model: LoadModel, settings: SamplingSettings) -> list[str]:
    """Return distinct texts of the base model alone, sampled in the way that the pool is sampled from the generator."""
    number = settings.num_samples
    with progress("sampling the baseline of epsilon zero", number, "samples") as advance:
        drawn = _draw(load_model(), settings, num_samples=number, first_number=0, advance=advance)
    return deduplicate(drawn)["text"].to_list()


def _draw(
    loaded: Loaded, settings: SamplingSettings, *, num_samples: int, first_number: int, advance: Advance
) -> pl.DataFrame:
    model, tokenizer = loaded
    return sample_instructions(
        model,
        tokenizer,
        prompt_ids=generator_prompt_ids(tokenizer, prompt=settings.prompt),
        num_samples=num_samples,
        sampling=settings.parameters,
        batch_size=settings.batch_size,
        advance=advance,
        first_number=first_number,
    )


def _digests(samples: pl.DataFrame) -> list[bytes]:
    """Return a 128-bit digest of each text, by which repeated texts are recognized."""
    return [hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for text in samples["text"]]
