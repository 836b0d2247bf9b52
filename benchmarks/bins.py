"""Bins, votes and resampling of a million vectors, against the matrix product and against the released code's way.

    python -m benchmarks.bins [--vectors 1000000] [--bins 1000] [--units 180000] [--part PART]

Parts:
  assignment   finding each vector's nearest bin, in turns with the bare float32 matrix product behind it
  rest         hashing, votes, noise, quotas and weights by the default rule, and an exact resample, one after the other
  stream       peak memory of a fresh process that fits bins to a stored table and assigns its rows
  clustering   bins fitted to a sample, and to all vectors, compared by the mean squared distance of all vectors
  released     the whole stage in turns with PCA, k-means with 5 restarts of 500 iterations and a loop over bins, at a
               size that fits, compared by time and by total variation from the real vectors over bins of neither

The vectors are mixtures of real ones (`_vectors.py`).
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks._vectors import ids, mixture_blocks, mixtures, pool_table, real_vectors, skewed
from benchmarks.harness import interleave, options, peak_memory, python, ratio, store, summaries
from dp_assets.arrays import Integers, Vectors
from dp_assets.artifacts import Table
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, noisy_votes
from dp_assets.selection.bins import SAMPLED_VECTORS_PER_BIN, fit_bins, nearest_bin
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import LOG_WEIGHT, quotas, resample_exactly
from dp_assets.selection.rules import apply_rule
from dp_assets.selection.smoothing import BLOCK_ROWS
from dp_assets.selection.vectors import assigned, sampled_vectors
from dp_assets.selection.votes import exact_votes
from resources.storage.artifact_files import read_artifact, write_artifact

PRODUCT_ROWS = 4096
VOTES_NOISE_STDDEV = 10.0
RELEASED_RESTARTS, RELEASED_ITERATIONS, EXPLAINED_VARIANCE = 5, 500, 0.9
KEY = b"benchmark"


def assignment(given: Any) -> dict[str, Any]:
    real = real_vectors(given.data, number=given.texts)
    vectors = mixtures(real, number=given.vectors, seed=1)
    centroids = fit_bins(vectors[: given.bins * 64], num_bins=given.bins, seed=0)
    scores = np.empty((PRODUCT_ROWS, given.bins), dtype=np.float32)

    def product() -> None:
        for start in range(0, len(vectors), PRODUCT_ROWS):
            block = vectors[start : start + PRODUCT_ROWS]
            np.matmul(block, centroids.T, out=scores[: len(block)])

    sides = {"assignment": lambda: nearest_bin(vectors, centroids), "matrix_product": product}
    seconds = interleave(sides, repeats=given.repeats)
    operations = 2 * vectors.size * given.bins
    return {
        "seconds": summaries(seconds),
        "assignment_over_matrix_product": ratio(seconds["assignment"], seconds["matrix_product"]),
        "matrix_product_gflops": operations / np.median(seconds["matrix_product"]) / 1e9,
    }


def rest(given: Any) -> dict[str, Any]:
    real = real_vectors(given.data, number=given.texts)
    centroids = fit_bins(mixtures(real, number=given.bins * 64, seed=1), num_bins=given.bins, seed=0)
    users = mixtures(real, number=given.units, seed=2, weights=skewed(real, seed=0))
    rows = pl.DataFrame({"unit_id": ids(given.units), "instruction_id": ids(given.units), "vector": users})
    vectors = mixtures(real, number=given.vectors, seed=3)
    bins = nearest_bin(vectors, centroids)
    pool = pl.DataFrame({"synthetic_id": ids(given.vectors), "bin_id": bins})
    noise = DiscreteGaussianNoise(noise_stddev=VOTES_NOISE_STDDEV, source=SystemRandomness())
    votes = exact_votes(rows, centroids, key=KEY)
    released = noisy_votes(votes, noise)
    rule = partial(
        apply_rule,
        "smoothed",
        NoisyHistogram(released, VOTES_NOISE_STDDEV),
        bins=bins,
        vectors=np.array_split(vectors, max(1, given.vectors // BLOCK_ROWS)),
        centroids=centroids,
        target_size=given.target,
    )
    result = rule()
    weighted = pool.with_columns(pl.Series(LOG_WEIGHT, result.log_weights))
    seconds = interleave(
        {
            "votes": lambda: exact_votes(rows, centroids, key=KEY),
            "noise": lambda: noisy_votes(votes, noise),
            "rule": rule,
            "resample": lambda: resample_exactly(weighted, quotas=result.quotas, target_size=given.target, seed=0),
        },
        repeats=given.repeats,
    )
    return {"seconds": summaries(seconds), "together": sum(float(np.median(values)) for values in seconds.values())}


def stream(given: Any) -> dict[str, Any]:
    """A stored table of vectors, as the IO manager writes it, through bins and assignment."""
    real = real_vectors(given.data, number=given.texts)
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        parts.mkdir()
        for number, block in enumerate(mixture_blocks(real, number=given.vectors, seed=1)):
            pool_table(block).write_parquet(parts / f"{number:05d}.parquet")
        stored = Path(folder) / "stored"
        stored.mkdir()
        write_artifact(stored, Table(pl.scan_parquet(parts / "*.parquet")))
        peak = peak_memory(
            python("-m", "benchmarks.bins", "--part", "from_table", "--table", str(stored), "--bins", str(given.bins))
        )
        size = sum(file.stat().st_size for file in stored.iterdir())
    return {"peak_bytes": peak.bytes, "seconds": peak.seconds, "stored_bytes": size}


def from_table(given: Any) -> None:
    """What the assets synthetic_bins and filtered_instructions do with the vectors."""
    table = read_artifact(given.table)
    assert isinstance(table, Table)
    sample = sampled_vectors(table.rows, most=given.bins * SAMPLED_VECTORS_PER_BIN, seed=0)
    centroids = fit_bins(sample, num_bins=given.bins, seed=0)
    del sample
    assigned(table.rows, centroids)


def clustering(given: Any) -> dict[str, Any]:
    real = real_vectors(given.data, number=given.texts)
    vectors = mixtures(real, number=given.vectors, seed=1)
    sample = vectors[: given.bins * SAMPLED_VECTORS_PER_BIN]
    sides = {"sample": partial(fit_bins, sample), "all": partial(fit_bins, vectors)}
    found, seconds = dict[str, float](), dict[str, float]()
    for name, fit in sides.items():
        fitted = dict[str, Vectors]()
        timed = interleave(
            {"fit": lambda fit=fit, into=fitted: into.update(c=fit(num_bins=given.bins, seed=0))},  # type: ignore[misc]
            repeats=1,
            warmups=0,
        )
        seconds[name] = timed["fit"][0]
        found[name] = mean_squared_distance(vectors, fitted["c"])
    return {
        "seconds": seconds,
        "mean_squared_distance": found,
        "sample_over_all": found["sample"] / found["all"],
        "sampled_vectors": len(sample),
    }


def mean_squared_distance(vectors: Vectors, centroids: Vectors) -> float:
    """The inertia of bins over all vectors, a vector."""
    total = 0.0
    for start in range(0, len(vectors), PRODUCT_ROWS):
        block = vectors[start : start + PRODUCT_ROWS]
        total += float(((block - centroids[nearest_bin(block, centroids)]) ** 2).sum(dtype=np.float64))
    return total / len(vectors)


def released(given: Any) -> dict[str, Any]:
    real = real_vectors(given.data, number=given.texts)
    weights = skewed(real, seed=0)
    pool = mixtures(real, number=given.released_vectors, seed=1)
    users = mixtures(real, number=given.released_units, seed=2, weights=weights)
    judging = fit_bins(mixtures(real, number=given.released_vectors, seed=3), num_bins=given.released_bins, seed=5)
    target, taken = given.released_units // 2, dict[str, list[npt.NDArray[np.int64]]]()

    def side(name: str, way: Callable[..., npt.NDArray[np.int64]]) -> Callable[[], object]:
        places = taken.setdefault(name, [])
        return lambda: places.append(way(pool, users, num_bins=given.released_bins, target=target, seed=len(places)))

    sides = {"ours": side("ours", our_way), "released": side("released", released_way)}
    seconds = interleave(sides, repeats=given.released_repeats, warmups=0)
    exact = shares(users, judging)
    variation = {
        name: [total_variation(shares(pool[each], judging), exact) for each in places] for name, places in taken.items()
    }
    return {
        "seconds": summaries(seconds),
        "released_over_ours": ratio(seconds["released"], seconds["ours"]),
        "total_variation": summaries(variation),
        "total_variation_of_the_pool": total_variation(shares(pool, judging), exact),
        "rows": {name: len(places[-1]) for name, places in taken.items()},
        "target": target,
    }


def our_way(pool: Vectors, users: Vectors, *, num_bins: int, target: int, seed: int) -> Integers:
    """Places in the pool of the rows that this project takes."""
    sample = pool[np.sort(np.random.default_rng(seed).permutation(len(pool))[: num_bins * SAMPLED_VECTORS_PER_BIN])]
    centroids = fit_bins(sample, num_bins=num_bins, seed=seed)
    votes = np.bincount(nearest_bin(users, centroids), minlength=num_bins).astype(np.int64)
    noise = DiscreteGaussianNoise(noise_stddev=VOTES_NOISE_STDDEV, source=SystemRandomness())
    row_quotas = quotas(noisy_votes(votes, noise), target_size=target)
    rows = pl.DataFrame({"synthetic_id": range(len(pool)), "bin_id": nearest_bin(pool, centroids)})
    chosen = resample_exactly(rows, quotas=row_quotas, target_size=target, seed=seed).rows
    return chosen["synthetic_id"].to_numpy()


def released_way(pool: Vectors, users: Vectors, *, num_bins: int, target: int, seed: int) -> Integers:
    """Places in the pool of the rows that the paper's released code would take, as its steps are described.

    PCA to 90 % of the variance, FAISS k-means with 5 restarts of 500 iterations on the reduced vectors, one vote for
    the nearest centroid, continuous Gaussian noise, and a loop over bins that draws from each.
    """
    from sklearn.decomposition import PCA

    draw = np.random.default_rng(seed)
    reduction = PCA(n_components=EXPLAINED_VARIANCE, svd_solver="full").fit(pool)
    reduced, real = (np.ascontiguousarray(reduction.transform(each), dtype=np.float32) for each in (pool, users))
    kmeans = faiss.Kmeans(
        reduced.shape[1], num_bins, niter=RELEASED_ITERATIONS, nredo=RELEASED_RESTARTS, seed=seed, verbose=False
    )
    kmeans.train(reduced)
    of_pool, of_real = (kmeans.index.search(each, 1)[1].ravel() for each in (reduced, real))
    votes = np.bincount(of_real, minlength=num_bins) + draw.normal(scale=VOTES_NOISE_STDDEV, size=num_bins)
    probabilities = np.maximum(0, votes / len(real))
    places = list[int]()
    for number in range(num_bins):
        members = [place for place, of in enumerate(of_pool) if of == number]
        take = min(int(target * probabilities[number]), len(members))
        places += draw.choice(members, size=take, replace=False).tolist() if take else []
    return np.array(places, dtype=np.int64)


def shares(vectors: Vectors, centroids: Vectors) -> npt.NDArray[np.float64]:
    counts = np.bincount(nearest_bin(vectors, centroids), minlength=len(centroids))
    found: npt.NDArray[np.float64] = counts / counts.sum()
    return found


def total_variation(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    return float(np.abs(p - q).sum() / 2)


PARTS = {"assignment": assignment, "rest": rest, "stream": stream, "clustering": clustering, "released": released}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--bins", type=int, default=1_000)
    parser.add_argument("--units", type=int, default=180_000)
    parser.add_argument("--target", type=int, default=180_000)
    parser.add_argument("--texts", type=int, default=6_000, help="real texts that are embedded")
    parser.add_argument("--released-vectors", type=int, default=50_000)
    parser.add_argument("--released-bins", type=int, default=100)
    parser.add_argument("--released-units", type=int, default=18_000)
    parser.add_argument("--released-repeats", type=int, default=3)
    parser.add_argument(
        "--part", choices=[*PARTS, "from_table"], action="append", help="one part, or several; else all"
    )
    parser.add_argument("--table", type=Path, help="the stored table that the part from_table reads")
    given = parser.parse_args()
    if given.part == ["from_table"]:
        from_table(given)
        return
    store("bins", {name: PARTS[name](given) for name in given.part or PARTS}, given, in_parts=True)


if __name__ == "__main__":
    main()
