"""Bins: the cells of the embedding space in which votes are counted.

Bins are fitted on synthetic vectors only, so they are post-processing and cost nothing; private vectors only ever meet
finished centroids.

After the paper's released code: k-means by FAISS. The paper first reduces the vectors by PCA to 90 % of the variance,
then runs 500 iterations with 5 restarts on a random subset. Left out here: the PCA, which would be one more thing to
release with the bins, and most of the iterations, to save time. FAISS itself draws a subset where there are more than
256 vectors a bin.
"""

import faiss
import numpy as np
import numpy.typing as npt

NO_BIN = -1
ITERATIONS = 50
RESTARTS = 5
BLOCK_ROWS = 4096


class TooFewVectors(ValueError):
    """There are fewer vectors than bins."""


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
        nredo=RESTARTS,
        seed=seed,
        min_points_per_centroid=1,  # FAISS warns below 39, a rule of thumb for codebooks; small pools are fine here
    )
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.array(kmeans.centroids, dtype=np.float32)


def nearest_bin(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin of each vector, int64 of shape (n,): the nearest centroid, the lowest index of several equally near ones.

    A vector's bin does not depend on the other vectors. A vector with a non-finite number gets `NO_BIN`.
    """
    centres = centroids.astype(np.float64)
    blocks = [_nearest_in_block(vectors[i : i + BLOCK_ROWS], centres) for i in range(0, len(vectors), BLOCK_ROWS)]
    return np.concatenate([np.empty(0, dtype=np.int64), *blocks])


def _nearest_in_block(block: npt.NDArray[np.float32], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """argmin over c of |x - c|^2 / 2 - |x|^2 / 2 = |c|^2 / 2 - x.c, with close calls decided one vector at a time.

    How a matrix product rounds depends on the rows beside a row, so that a new unit could turn another unit's close
    call and move two votes. A call is close when the two best scores differ by less than rounding can explain.
    """
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(block), axis=1)
    rows = np.where(finite[:, None], block, 0).astype(np.float64)
    half_norms = (centres**2).sum(axis=1) / 2
    scores = half_norms - rows @ centres.T
    nearest: npt.NDArray[np.int64] = scores.argmin(axis=1)
    best = np.take_along_axis(scores, nearest[:, None], axis=1)
    close = (scores <= best + _rounding_bound(rows, half_norms)).sum(axis=1) > 1
    for row in np.flatnonzero(close):
        nearest[row] = ((centres - rows[row]) ** 2).sum(axis=1).argmin()
    nearest[~finite] = NO_BIN
    return nearest


def _rounding_bound(rows: npt.NDArray[np.float64], half_norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A generous bound, shape (n, 1), on what rounding adds to a difference of two scores of a row."""
    longest = np.sqrt(2 * half_norms.max())
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    bound: npt.NDArray[np.float64] = 8 * rows.shape[1] * np.finfo(np.float64).eps * longest * (lengths + longest)
    return bound
