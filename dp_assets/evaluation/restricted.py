"""Utility figures against the exact real rows, for use inside the private zone only.

These figures have no privacy guarantee: they are exact functions of private rows. The nearest-neighbor and copy figures
reveal most, because they search for a real row. Nothing here may be logged, shown or stored outside the private zone,
and no decision about a release may rest on it. A figure that is undefined for want of rows is NaN, because a failing
step would reveal the cohort's size. Errors name an argument and a rule, never a size.

A set of held-out real rows, passed as one of the synthetic sets, shows the best value that each figure can reach.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import polars as pl

from dp_assets.arrays import Floats, Vectors
from dp_assets.evaluation.agreement import bin_shares, total_variation
from dp_assets.evaluation.text_figures import normalize
from dp_assets.selection.bins import nearest_bin

DISTANCE_QUANTILES = (0.01, 0.1, 0.5)
NEIGHBORS, MOST_NEIGHBOR_ROWS = 5, 5000
"""The k of the k-nearest-neighbor figures, as in Naeem et al., and the most rows of a side that they use."""
BLOCK_ROWS = 1024
SCHEMA = {"metric": pl.String, "subject": pl.String, "value": pl.Float64}


def restricted_figures(
    *,
    real_vectors: Vectors,
    synthetic_vectors: Mapping[str, Vectors],
    centroids: Vectors,
    mauve_buckets: int,
    seed: int,
) -> pl.DataFrame:
    """Compare each synthetic set with the real rows.

    The metrics are `exact_total_variation` (over the bins), `mauve`, `frechet_distance`, the four of
    `neighbor_figures`, and `nearest_real_distance_p01`, `_p10`, `_p50` (quantiles of the synthetic rows' distances to
    the nearest real row).

    Args:
      real_vectors: float32 (n, d), where n may be 0; rows that are not finite are left out.
      synthetic_vectors: float32 (m, d) by the name of the set.
      centroids: the bins, float32 (num_bins, d).
      mauve_buckets: the number of cells of MAUVE's own quantization.
      seed: a public seed for the k-means in MAUVE.

    Returns:
      Columns `metric`, `subject` (the name of the set) and `value`. The value is NaN for distances from or to no row,
      for Gaussians of fewer than two rows, for MAUVE with fewer rows than `mauve_buckets`, and for nearest-neighbor
      figures where a side has at most five rows.
    """
    real = real_vectors[np.isfinite(real_vectors).all(axis=1)]
    rows = []
    for subject, vectors in synthetic_vectors.items():
        some, several = (min(len(real), len(vectors)) >= fewest for fewest in (1, 2))
        enough = several and len(real) + len(vectors) >= mauve_buckets
        figures = {
            "exact_total_variation": exact_total_variation(real, vectors, centroids) if some else math.nan,
            "mauve": mauve(real, vectors, num_buckets=mauve_buckets, seed=seed) if enough else math.nan,
            "frechet_distance": frechet_distance(real, vectors) if several else math.nan,
            **neighbor_figures(real, vectors, seed=seed),
            **_nearest_distance_quantiles(vectors, real),
        }
        rows += [(metric, subject, value) for metric, value in figures.items()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def copy_figures(*, real_texts: Sequence[str], synthetic_texts: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Return the share of texts in each synthetic set that equal a real text, ignoring case and white space.

    The columns are those of `restricted_figures`. The metric is `verbatim_copy_share`, 0 for an empty set. Common short
    requests are copies by chance, so compare with a held-out real set before drawing a conclusion.
    """
    real = normalize(pl.Series("text", real_texts, dtype=pl.String)).unique()
    rows = []
    for subject, texts in synthetic_texts.items():
        copied = normalize(pl.Series("text", texts, dtype=pl.String)).is_in(real.implode())
        rows.append(("verbatim_copy_share", subject, int(copied.sum()) / max(1, len(copied))))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def exact_total_variation(real_vectors: Vectors, synthetic_vectors: Vectors, centroids: Vectors) -> float:
    """Return the total variation between the exact shares of two sets over the bins, without noise."""
    real, synthetic = (
        bin_shares(nearest_bin(vectors, centroids), len(centroids)) for vectors in (real_vectors, synthetic_vectors)
    )
    return total_variation(real, synthetic)


def mauve(real_vectors: Vectors, synthetic_vectors: Vectors, *, num_buckets: int, seed: int) -> float:
    """Compute MAUVE (Pillutla et al., NeurIPS 2021) on given features: 1 for equal distributions, near 0 for distant.

    Raises:
      ValueError: there are fewer rows than buckets.
    """
    # Imported here, because it imports torch.
    from mauve import compute_mauve

    if num_buckets > len(real_vectors) + len(synthetic_vectors):
        raise ValueError("mauve_buckets exceeds the rows of the two sets together; use fewer buckets")
    with _silenced_standard_error():
        outcome = compute_mauve(
            p_features=real_vectors,
            q_features=synthetic_vectors,
            num_buckets=num_buckets,
            seed=seed,
            device_id=-1,
            verbose=False,
        )
    return float(outcome.mauve)


def frechet_distance(first: Vectors, second: Vectors) -> float:
    """Compute the squared Frechet distance of Gaussians fitted to two sets.

    It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) for means m and covariances C: the "FID" of Heusel et al. (NeurIPS
    2017) on other features. The trace of the root is computed from the symmetric C1^(1/2) C2 C1^(1/2), which has the
    same eigenvalues and is well defined with fewer rows than dimensions.
    """
    first_mean, first_covariance = _gaussian_fit(first)
    second_mean, second_covariance = _gaussian_fit(second)
    root = _symmetric_root(first_covariance)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second_covariance @ root), 0.0, None)).sum()
    gap = first_mean - second_mean
    return max(0.0, float(gap @ gap + np.trace(first_covariance) + np.trace(second_covariance) - 2 * cross))


def neighbor_figures(real_vectors: Vectors, synthetic_vectors: Vectors, *, seed: int) -> dict[str, float]:
    """Compute precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    The ball of a row reaches to its fifth neighbor in its own set. Both sides are subsampled to one size, because the
    size of a ball depends on it.

    - `precision`: the share of synthetic rows in the ball of a real row.
    - `recall`: the share of real rows in the ball of a synthetic row.
    - `density`: the mean number of real balls that contain a synthetic row, divided by five, which equal distributions
      are expected to give.
    - `coverage`: the share of real balls that contain a synthetic row.

    Returns:
      The four figures by name, NaN where a side has too few rows for a fifth neighbor.
    """
    size = min(len(real_vectors), len(synthetic_vectors), MOST_NEIGHBOR_ROWS)
    if size <= NEIGHBORS:
        return dict.fromkeys(("precision", "recall", "density", "coverage"), math.nan)
    generator = np.random.default_rng(seed)
    real, synthetic = (
        np.ascontiguousarray(each[np.sort(generator.permutation(len(each))[:size])], dtype=np.float64)
        for each in (real_vectors, synthetic_vectors)
    )
    real_radii, synthetic_radii = _radii(real), _radii(synthetic)
    balls, in_a_real_ball, in_a_synthetic_ball, covered = 0, 0, 0, np.zeros(size, dtype=bool)
    for start in range(0, size, BLOCK_ROWS):
        distances = _distances(synthetic[start : start + BLOCK_ROWS], real)
        inside = distances <= real_radii
        balls += int(inside.sum())
        in_a_real_ball += int(inside.any(axis=1).sum())
        covered |= inside.any(axis=0)
        in_a_synthetic_ball += int(
            (_distances(real[start : start + BLOCK_ROWS], synthetic) <= synthetic_radii).any(1).sum()
        )
    return {
        "precision": in_a_real_ball / size,
        "recall": in_a_synthetic_ball / size,
        "density": balls / (NEIGHBORS * size),
        "coverage": float(covered.mean()),
    }


def _radii(vectors: Floats) -> Floats:
    """Return the distance (n,) of each row to its fifth neighbor in its own set, not counting itself."""
    blocks = [
        np.partition(_distances(vectors[start : start + BLOCK_ROWS], vectors), NEIGHBORS, axis=1)[:, NEIGHBORS]
        for start in range(0, len(vectors), BLOCK_ROWS)
    ]
    return np.concatenate(blocks)


def _distances(first: Floats, second: Floats) -> Floats:
    """Return the Euclidean distances of all pairs, (n, m)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    distances: Floats = np.sqrt(np.clip(squares, 0.0, None))
    return distances


def nearest_distances(vectors: Vectors, others: Vectors) -> Floats:
    """Return the Euclidean distance (n,) of each of `vectors` (n, d) to the nearest of `others` (m, d)."""
    import faiss

    index = faiss.IndexFlatL2(others.shape[1])
    index.add(np.ascontiguousarray(others, dtype=np.float32))
    _, nearest = index.search(np.ascontiguousarray(vectors, dtype=np.float32), 1)
    # Recomputed, because the index subtracts large numbers and its distance of a copy is not exactly zero.
    distances: Floats = np.linalg.norm(vectors.astype(np.float64) - others[nearest[:, 0]], axis=1)
    return distances


def _nearest_distance_quantiles(vectors: Vectors, real_vectors: Vectors) -> dict[str, float]:
    """Return quantiles of the distances of `vectors` to the nearest real row; NaN if there is no distance."""
    some = len(vectors) and len(real_vectors)
    distances = nearest_distances(vectors, real_vectors) if some else np.array([math.nan])
    return {f"nearest_real_distance_p{q * 100:02.0f}": float(np.quantile(distances, q)) for q in DISTANCE_QUANTILES}


def _gaussian_fit(vectors: Vectors) -> tuple[Floats, Floats]:
    exact = vectors.astype(np.float64)
    return exact.mean(axis=0), np.cov(exact, rowvar=False)


def _symmetric_root(matrix: Floats) -> Floats:
    values, basis = np.linalg.eigh(matrix)
    root: Floats = (basis * np.sqrt(np.clip(values, 0.0, None))) @ basis.T
    return root


@contextmanager
def _silenced_standard_error() -> Iterator[None]:
    """Discard what the process writes to standard error.

    FAISS, inside MAUVE, prints a warning about few rows a cell that names the number of rows, which is private. It
    writes from C++ to the file descriptor, so replacing `sys.stderr` would not stop it.
    """
    saved_descriptor = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved_descriptor, 2)
        os.close(saved_descriptor)
