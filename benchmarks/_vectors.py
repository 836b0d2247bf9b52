"""Vectors for benchmarks: as many as are asked for, made of real ones.

A few thousand texts are embedded by the packaged MiniLM model. Each further vector is the normalized sum of one of
them, a smaller share of another, and a little Gaussian noise: near real texts, between them, and no two alike.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.harness import texts
from dp_assets.arrays import Vectors
from resources.models.loaders import Embedder

MOST_OF_ANOTHER, NOISE = 0.7, 0.02
BLOCK = 16_384


@functools.cache
def real_vectors(data: Path | None, *, number: int) -> Vectors:
    """Unit vectors of `number` real texts, or of as many as there are, float32 (n, 384)."""
    return Embedder().encode(texts(data, limit=number))


def mixtures(real: Vectors, *, number: int, seed: int, weights: npt.NDArray[np.float64] | None = None) -> Vectors:
    """`number` unit vectors made of `real`, whose rows are drawn in proportion to `weights`."""
    return np.concatenate(list(mixture_blocks(real, number=number, seed=seed, weights=weights)))


def mixture_blocks(
    real: Vectors, *, number: int, seed: int, weights: npt.NDArray[np.float64] | None = None
) -> Iterator[Vectors]:
    draw = np.random.default_rng(seed)
    for start in range(0, number, BLOCK):
        size = min(BLOCK, number - start)
        first, other = (real[draw.choice(len(real), size=size, p=weights)] for _ in range(2))
        share = MOST_OF_ANOTHER * draw.random((size, 1), dtype=np.float32)
        mixed = first + share * other + NOISE * draw.standard_normal(first.shape, dtype=np.float32)
        yield mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def skewed(real: Vectors, *, seed: int) -> npt.NDArray[np.float64]:
    """Weights of another population than the uniform one: each text's weight is exponential in a random direction."""
    direction = np.random.default_rng(seed).standard_normal(real.shape[1])
    along = real.astype(np.float64) @ direction
    weights = np.exp((along - np.mean(along)) / np.std(along))
    found: npt.NDArray[np.float64] = weights / np.sum(weights)
    return found


def pool_table(vectors: Vectors) -> pl.DataFrame:
    """`synthetic_id` and `vector`, as the asset synthetic_embeddings holds them."""
    return pl.DataFrame({"synthetic_id": ids(len(vectors)), "vector": vectors})


def ids(number: int) -> pl.Series:
    name = pl.format("pool-{}", pl.int_range(number).cast(pl.String).str.zfill(7))
    return pl.select(name.alias("synthetic_id"))["synthetic_id"]
