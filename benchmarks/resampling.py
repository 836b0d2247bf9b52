"""Resampling a pool towards noisy votes: the smoothed rule against the paper's, at equal privacy.

    python -m benchmarks.resampling --folder DATA --cache CACHE [--pair oasst|dolly|roleplay] [--seeds 5] [--out FILE]

Takes about ten minutes of one core a pair; results are stored after every seed.

DATA holds `instructions_dev.parquet` and `responses_dev.parquet`. Each seed splits the real corpus anew into real rows,
which vote, and test rows, which the resampled pool is compared with; draws the noise; and resamples. Votes, rules and
draws are those of the product; the noise is seeded, which a release never is. The paper's rule stands as released:
floors and minima, so that its sets miss the target size. `limit` rows have no noise.

Figures: `size`, `quota_tv` (total variation between the shares asked for and the exact votes), `tv` (of the rows
taken), `mauve` (200 buckets, 2,500 rows a side), `frechet`, `precision`, `recall`, `density` and `coverage` (of five
neighbors), `distinct_2` (distinct word pairs among all). Each is a mean over the seeds with its standard error.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks._corpora import cached_vectors, texts_of
from benchmarks._paper_rule import paper_quotas
from benchmarks._rules import taken_by
from benchmarks.harness import options, store
from dp_assets.arrays import Integers, Vectors
from dp_assets.evaluation.agreement import total_variation
from dp_assets.evaluation.restricted import frechet_distance, mauve, neighbor_figures
from dp_assets.generation.diversity import distinct_n
from dp_assets.selection.bins import fit_bins, nearest_bin
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import resample
from dp_assets.vocabulary import Rule

BINS, NOISES, TARGET = (50, 200, 1000), (10, 30), 3_000
ROWS_A_SIDE, BUCKETS = 2_500, 200


@dataclass(frozen=True)
class Pair:
    """A real corpus, of which `num_real` rows vote, and a pool; sources by (file, source, column)."""

    real: tuple[str, str, str]
    num_real: int
    pool: tuple[tuple[str, str, str], ...]


OASST = ("instructions_dev.parquet", "oasst1-en-train", "text")
DOLLY = ("instructions_dev.parquet", "dolly-15k-subset", "text")
MADE = tuple(
    ("responses_dev.parquet", name, "instruction") for name in ("gpteacher-roleplay", "llamafactory-alpaca-en-demo")
)
PAIRS = {
    "oasst": Pair(OASST, 5_000, (DOLLY, *MADE)),
    "dolly": Pair(DOLLY, 2_600, (OASST, *MADE)),
    "roleplay": Pair(MADE[0], 1_800, (OASST, DOLLY)),
}


@dataclass(frozen=True)
class Setting:
    """One seed's rows: those that vote, those compared with, and the pool."""

    real: Vectors
    test: Vectors
    pool: Vectors
    pool_texts: list[str]


@dataclass(frozen=True)
class Vote:
    """A histogram of the real rows over bins of the pool."""

    centroids: Vectors
    bins: Integers
    exact: Integers
    noisy: Integers
    noise_stddev: float


def load(folder: Path, cache: Path, sources: tuple[tuple[str, str, str], ...]) -> tuple[list[str], Vectors]:
    """The distinct texts of all sources and their vectors."""
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    for file, source, column in sources:
        texts = texts_of(folder / file, source, column=column)
        vectors = dict(zip(texts, cached_vectors(texts, cache), strict=True)) | vectors
    return list(vectors), np.stack(list(vectors.values()))


def cached_bins(pool: Vectors, num_bins: int, cache: Path, name: str) -> Vectors:
    """Bins of the pool, fitted once for all seeds."""
    file = cache / f"bins-{name}-{num_bins}.npy"
    if not file.exists():
        np.save(file, fit_bins(pool, num_bins=num_bins, seed=0))
    centroids: Vectors = np.load(file)
    return centroids


def paper(vote: Vote, setting: Setting, seed: int) -> tuple[Integers, Integers]:
    """The rows taken, and the shares asked for, by the rule of the released code."""
    in_pool = np.bincount(vote.bins, minlength=len(vote.exact))
    wanted = paper_quotas(vote.noisy, in_pool, num_units=len(setting.real), target_size=TARGET)
    return rows_of(resample(frame(vote), quotas=wanted, seed=seed).rows), vote.noisy.clip(0)


def at_exact_size(rule: Rule, vote: Vote, setting: Setting, seed: int) -> tuple[Integers, Integers]:
    """The same by a rule of the product."""
    rows, quotas = taken_by(
        rule,
        NoisyHistogram(vote.noisy, vote.noise_stddev),
        pool=frame(vote),
        vectors=setting.pool,
        centroids=vote.centroids,
        target_size=TARGET,
        seed=seed,
    )
    return rows_of(rows), quotas


RULES: Mapping[str, Callable[[Vote, Setting, int], tuple[Integers, Integers]]] = {
    "paper": paper,
    "paper_exact_size": partial(at_exact_size, "paper"),
    "smoothed": partial(at_exact_size, "smoothed"),
}


def frame(vote: Vote) -> pl.DataFrame:
    return pl.DataFrame({"synthetic_id": [f"{row:07d}" for row in range(len(vote.bins))], "bin_id": vote.bins})


def rows_of(chosen: pl.DataFrame) -> Integers:
    return chosen["synthetic_id"].cast(pl.Int64).to_numpy()


def figures(chosen: Integers, setting: Setting, *, seed: int) -> dict[str, float]:
    """How the chosen rows of the pool compare with the test rows."""
    taken, texts = setting.pool[chosen], [setting.pool_texts[row] for row in chosen]
    return {"size": len(chosen)} | compared(taken, setting.test, seed=seed) | {"distinct_2": distinct_n(texts, 2)}


def compared(taken: Vectors, test: Vectors, *, seed: int) -> dict[str, float]:
    ours, theirs = some(taken, seed=seed), some(test, seed=seed + 1)
    return {
        "mauve": mauve(theirs, ours, num_buckets=BUCKETS, seed=seed),
        "frechet": frechet_distance(taken, test),
        **neighbor_figures(theirs, ours, seed=seed),
    }


def some(vectors: Vectors, *, seed: int) -> Vectors:
    return vectors[np.random.default_rng(seed).permutation(len(vectors))[:ROWS_A_SIDE]]


def cells() -> Iterator[tuple[int, float, tuple[str, ...]]]:
    """Bins, noise and rules that are compared; without noise the rules' limits."""
    for num_bins in BINS:
        for noise in NOISES:
            yield num_bins, float(noise), ("paper", "smoothed")
    yield from ((num_bins, 0.0, ("paper", "paper_exact_size", "smoothed")) for num_bins in BINS[1:])


def one_seed(pair: Pair, name: str, given: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    _, real = load(given.folder, given.cache, (pair.real,))
    pool_texts, pool = load(given.folder, given.cache, pair.pool)
    order = np.random.default_rng(seed).permutation(len(real))
    setting = Setting(real[order[: pair.num_real]], real[order[pair.num_real :]], pool, pool_texts)
    found = {
        "pool, unfiltered": figures(np.arange(len(pool)), setting, seed=seed),
        "real rows": compared(setting.real, setting.test, seed=seed),
    }
    for num_bins, noise, rules in cells():
        centroids = cached_bins(pool, num_bins, given.cache, name)
        exact = np.bincount(nearest_bin(setting.real, centroids), minlength=num_bins)
        noisy = np.rint(exact + noise * np.random.default_rng(seed).normal(size=num_bins)).astype(np.int64)
        vote = Vote(centroids, nearest_bin(pool, centroids), exact, noisy, noise)
        for rule in rules:
            chosen, shares = RULES[rule](vote, setting, seed)
            apart = partial(total_variation, exact / exact.sum())
            taken = np.bincount(vote.bins[chosen], minlength=num_bins)
            found[f"{rule}, K={num_bins}, noise {noise:g}"] = {
                "quota_tv": apart(shares / shares.sum()),
                "tv": apart(taken / taken.sum()),
                **figures(chosen, setting, seed=seed),
            }
    return found


def summarized(seeds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Means and standard errors over the seeds."""
    return {
        row: {name: mean_and_error([one[row][name] for one in seeds]) for name in seeds[0][row]} for row in seeds[0]
    }


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds the two Parquet files")
    parser.add_argument("--cache", type=Path, required=True, help="where vectors and bins are kept")
    parser.add_argument("--pair", choices=list(PAIRS), default="oasst")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    seeds = []
    for seed in range(given.seeds):
        seeds.append(one_seed(PAIRS[given.pair], given.pair, given, seed))
        print(f"seed {seed} done", flush=True)
        store(f"resampling_{given.pair}", {"seeds": len(seeds), "rows": summarized(seeds)}, given)


if __name__ == "__main__":
    main()
