"""A tiny text embedder for tests and dry runs: hashed character n-grams, no model, no torch.

It captures spelling and not meaning. So its bins and votes show that the pipeline runs, and say nothing about quality.
"""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DIMENSION = 64
_NGRAM_SIZES = (2, 3, 4)


def hashed_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return L2-normalized vectors of shape (number of texts, 64), equal on every machine and in every process."""
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    vectors[:, 0] = 1.0  # No n-gram maps to this coordinate, so no vector has norm zero.
    for row, text in enumerate(texts):
        for ngram in _ngrams(text):
            code = zlib.crc32(ngram.encode())
            vectors[row, 1 + (code >> 1) % (DIMENSION - 1)] += 1.0 if code & 1 else -1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _ngrams(text: str) -> Iterator[str]:
    padded = f" {text.lower()} "
    for size in _NGRAM_SIZES:
        yield from (padded[start : start + size] for start in range(len(padded) - size + 1))
