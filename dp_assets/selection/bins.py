"""Bins: the cells of the embedding space in which votes are counted.

Bins are fitted on synthetic vectors only, so they are post-processing and cost nothing; private vectors only ever meet
finished centroids.

After the paper's released code: k-means by FAISS. The paper first reduces the vectors by PCA to 90 % of the variance,
then runs 500 iterations with 5 restarts on a random subset. Left out here: the PCA, which would be one more thing to
release with the bins, the restarts and most of the iterations: what they and a larger sample than
`SAMPLED_VECTORS_PER_BIN` gain is in docs/results/bins.md.
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
    """SHA-256 of the bins, float32 of shape (num_bins, d), by their numbers."""
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
        max_points_per_centroid=len(vectors),  # the caller has sampled; FAISS would draw once more
        min_points_per_centroid=1,  # FAISS warns below 39, a rule of thumb for codebooks; small pools are fine here
    )
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.array(kmeans.centroids, dtype=np.float32)


def nearest_bin(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin of each vector, int64 of shape (n,): the nearest centroid, the lowest index of several equally near ones.

    A vector's bin does not depend on the other vectors. A vector with a non-finite number gets `NO_BIN`.
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
    """The nearest centroids, which a float32 product narrows down to few candidates, nearly always to one.

    The product gives scores |c|^2 / 2 - x.c, half a squared distance but for what all centroids share. How it rounds
    depends on the rows beside a row, so that a new unit could turn another unit's close call and move two votes.
    Therefore it only rules out what its rounding cannot have made worse than the best; among those that are left,
    distances decide that depend on the vector and the centroid alone. `scores` (len(block), num_bins) is written over.
    """
    finite = np.all(np.isfinite(block), axis=1)
    rows = block if finite.all() else np.where(finite[:, None], block, np.float32(0))
    each = np.arange(len(rows))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what overflowed is not greater than anything, so never ruled out
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
    """How far apart two scores of a row must be, shape (n,), for product and distances to agree on which is less.

    A sum of d products rounds by at most d u / (1 - d u) |x| |c|, in whatever order and with or without fused steps
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), where u is half an ulp of 1; a distance in
    float64 by (d + 2) u' (|x| + |c|)^2. Added are the half norm's rounding, the subtraction's, that of this bound, and
    underflow. What could overflow gets infinity.
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
    """The candidate at the least distance from each row, the lowest index of several."""
    row, candidate = np.nonzero(is_candidate)
    parts = range(0, len(row), BLOCK_ROWS)
    pairs = [(rows[row[i : i + BLOCK_ROWS]], centroids[candidate[i : i + BLOCK_ROWS]]) for i in parts]
    distances = np.concatenate([np.empty(0), *(_squared_distances(*pair) for pair in pairs)])
    order = np.lexsort((candidate, distances, row))
    is_first = np.diff(row[order], prepend=-1) > 0
    return candidate[order][is_first]


def _squared_distances(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """|x - c|^2 of each pair of rows, shape (n,), by operations on single numbers in the order of the dimensions.

    A pair's distance then depends on nothing else, which a reduction does not promise.
    """
    total = np.zeros(len(vectors))
    for of_vectors, of_centroids in zip(vectors.T.astype(np.float64), centroids.T.astype(np.float64), strict=True):
        difference = of_vectors - of_centroids
        total += difference * difference
    return total
