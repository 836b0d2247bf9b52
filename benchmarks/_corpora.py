"""Corpora of a benchmark and their vectors, computed once and kept in a folder.

A corpus is the distinct texts of one source of a Parquet file, in the file's order. Vectors are those of the packaged
embedder. They are kept under the hash of the texts, so a corpus that changed is never answered from the folder.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from dp_assets.arrays import Vectors
from resources.models.loaders import Embedder


def texts_of(file: Path, source: str, *, column: str = "text", most: int | None = None) -> list[str]:
    """The distinct texts of one source, in the order of the file, at most the first `most`.

    Raises:
      ValueError: the file has no row of that source.
    """
    rows = pl.scan_parquet(file).filter(pl.col("source") == source).select(column).collect()
    texts = rows[column].drop_nulls().unique(maintain_order=True).to_list()
    if not texts:
        raise ValueError(f"{file.name} has no row whose source is {source!r}; name another source or file")
    return texts[:most]


def cached_vectors(texts: Sequence[str], cache: Path) -> Vectors:
    """The packaged embedder's vectors of the texts, float32 (n, d), from the folder `cache` where they are there."""
    file = cache / f"{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part.npy")
        np.save(unfinished, Embedder().encode(texts))
        unfinished.rename(file)
    vectors: Vectors = np.load(file)
    return vectors
