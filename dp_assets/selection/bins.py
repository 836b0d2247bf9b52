"""Bins: the cells of the embedding space in which votes are counted.

Bins are fitted on synthetic vectors only, so they are post-processing and cost no privacy. Private vectors are only
assigned to finished centroids.

The method is k-means with FAISS, as in the paper's released code. The paper first reduces the vectors by PCA to 90 % of
the variance, then runs 500 iterations with 5 restarts on a random subset. Left out here: the PCA, which would have to
be released with the bins, the restarts, and most of the iterations. docs/results/bins.md has what these and a larger
sample than `SAMPLED_VECTORS_PER_BIN` would gain.
"""

import hashlib

import faiss
import numpy as np
import numpy.typing as npt

NO_BIN = -1
ITERATIONS = 25
SAMPLED_VECTORS_PER_BIN = 256
BLOCK_ROWS = 2048
HUGE, TINY = 1e37, 1e-15
"""Where products in float32 come near overflow, and more than what is lost of a length or a sum where they vanish."""


class TooFewVectors(ValueError):
    """There are fewer vectors than bins."""


def digest_of(centroids: npt.NDArray[np.float32]) -> str:
    """Return the SHA-256 of the bins: of the values of `centroids`, float32 of shape (num_bins, d)."""
    return hashlib.sha256(np.ascontiguousarray(centroids, dtype=np.float32).tobytes()).hexdigest()


def fit_bins(vectors: npt.NDArray[np.float32], *, num_bins: int, seed: int) -> npt.NDArray[np.float32]:
    """Fit centroids of shape (num_bins, d) to released or public vectors of shape (n, d).

    The same vectors in the same order and the same public seed give the same centroids.

    Raises:
      TooFewVectors: n is less than `num_bins`.
    """
    if len(vectors) < num_bins:
        raise TooFewVectors(
            f"{num_bins} bins need at least as many synthetic vectors, got {len(vectors)};"
            " sample a larger synthetic pool or plan fewer bins"
        )
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        num_bins,
        niter=ITERATIONS,
        seed=seed,
        max_points_per_centroid=len(vectors),  # the caller has sampled already; FAISS would sample again
        min_points_per_centroid=1,  # FAISS warns below 39, a rule of thumb for codebooks; small pools are fine here
    )
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.array(kmeans.centroids, dtype=np.float32)


def nearest_bin(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the bin of each vector, int64 of shape (n,): the index of the nearest centroid.

    - A vector's bin does not depend on the other vectors.
    - Of several equally near centroids the lowest index counts.
    - A vector with a non-finite number gets `NO_BIN`.
    """
    half_norms = (centroids.astype(np.float64) ** 2).sum(axis=1) / 2
    scores = np.empty((min(len(vectors), BLOCK_ROWS), len(centroids)), dtype=np.float32)
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        found = _nearest_in_block(block, centroids, half_norms, scores[: len(block)])
        nearest[start : start + BLOCK_ROWS] = found
    return nearest


def _nearest_in_block(
    block: npt.NDArray[np.float32],
    centroids: npt.NDArray[np.float32],
    half_norms: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float32],
) -> npt.NDArray[np.int64]:
    """Return the nearest centroid of each row, after a float32 product has left few candidates, nearly always one.

    The product gives scores |c|^2 / 2 - x.c: half the squared distance, up to a term that all centroids share. Its
    rounding depends on the other rows of the block. If it decided alone, adding a unit could change the bin of another
    unit whose two nearest centroids are almost equally near, and two votes would change. So the product only excludes
    centroids that are not nearest whatever its rounding. Among the rest, distances decide that depend only on the
    vector and the centroid. `scores` (len(block), num_bins) is overwritten.
    """
    finite = np.all(np.isfinite(block), axis=1)
    rows = block if finite.all() else np.where(finite[:, None], block, np.float32(0))
    each = np.arange(len(rows))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # where a score could overflow, the limit is infinite, so nothing is excluded
        np.matmul(rows, centroids.T, out=scores)
        np.subtract(half_norms.astype(np.float32), scores, out=scores)
        nearest: npt.NDArray[np.int64] = scores.argmin(axis=1)
        best = scores[each, nearest]
        limits = best + _rounding_bound(rows, half_norms)
        scores[each, nearest] = np.inf
        close = np.flatnonzero(~(scores.min(axis=1) > limits))
        is_candidate = ~(scores[close] > limits[close, None])
    is_candidate[np.arange(len(close)), nearest[close]] = True
    nearest[close] = _nearest_of_candidates(rows[close], centroids, is_candidate)
    nearest[~finite] = NO_BIN
    return nearest


def _rounding_bound(rows: npt.NDArray[np.float32], half_norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the difference above which product and distances agree on the lesser of two scores of a row, shape (n,).

    A sum of d products rounds by at most d u / (1 - d u) |x| |c|, in any order and with or without fused operations
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), where u is half an ulp of 1. A distance in
    float64 rounds by at most (d + 2) u' (|x| + |c|)^2. The bound also covers the rounding of the half norm, of the
    subtraction and of the bound itself, and underflow. It is infinity where a score could overflow.
    """
    terms = rows.shape[1] + 8
    longest = np.sqrt(2 * half_norms.max())
    lengths = 1.001 * np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float32).astype(np.float64)) + TINY
    product = 2.02 * terms * np.finfo(np.float32).eps / 2 * (lengths + longest) * longest
    distance = 2.02 * terms * np.finfo(np.float64).eps / 2 * (lengths + longest) ** 2
    bound: npt.NDArray[np.float64] = product + distance + TINY
    return np.where((lengths + longest) * longest < HUGE, bound, np.inf).astype(np.float32)


def _nearest_of_candidates(
    rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], is_candidate: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the candidate at the least distance from each row; the lowest index of several equally near ones."""
    row, candidate = np.nonzero(is_candidate)
    parts = range(0, len(row), BLOCK_ROWS)
    pairs = [(rows[row[i : i + BLOCK_ROWS]], centroids[candidate[i : i + BLOCK_ROWS]]) for i in parts]
    distances = np.concatenate([np.empty(0), *(_squared_distances(*pair) for pair in pairs)])
    order = np.lexsort((candidate, distances, row))
    is_first = np.diff(row[order], prepend=-1) > 0
    return candidate[order][is_first]


def _squared_distances(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return |x - c|^2 of each pair of rows, float64 of shape (n,).

    It is computed by elementwise operations, one dimension after another. So a pair's distance does not depend on the
    other pairs, which a reduction over an axis does not guarantee.
    """
    total = np.zeros(len(vectors))
    for of_vectors, of_centroids in zip(vectors.T.astype(np.float64), centroids.T.astype(np.float64), strict=True):
        difference = of_vectors - of_centroids
        total += difference * difference
    return total
