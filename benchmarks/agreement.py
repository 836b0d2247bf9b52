"""How well the free figures of the quality report predict the exact ones, on public data.

    python -m benchmarks.agreement --folder FOLDER [--cache FOLDER] [--rows FOLDER] [--noises 10 30] [--bins 50 200]

FOLDER holds `instructions_dev.parquet`, `responses_dev.parquet` and `chat_messages_dev.parquet`. For two real
corpora, pools of different origin, numbers of bins, noises and rules, a synthetic set is made, its free figures are
computed from noisy votes, and its exact ones from all real rows. The results are rank correlations between the two, in
three scopes:

    all      all sets of a corpus together
    pools    sets that differ in their pool only: which of several sources is better?
    within   sets of one pool, which differ in rule, bins and noise: which setting is better?

A correlation is positive where the free figure points the right way, and is the mean over the groups of its scope
(corpora; corpora by bins, noise and rule; corpora by pools). Its interval comes from drawing whole pools with
replacement, with the ranks left as they are.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import kendalltau, rankdata

from benchmarks._corpora import cached_vectors, texts_of
from benchmarks._paper_rule import paper_quotas
from benchmarks._rules import taken_by
from benchmarks.harness import options, store
from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.evaluation import agreement
from dp_assets.evaluation.restricted import frechet_distance, mauve, neighbor_figures
from dp_assets.evaluation.vote_posterior import VotePosterior, vote_posterior
from dp_assets.selection.bins import fit_bins, nearest_bin
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import resample
from dp_assets.vocabulary import Rule

INSTRUCTIONS, RESPONSES, CHAT = "instructions_dev.parquet", "responses_dev.parquet", "chat_messages_dev.parquet"
HUMAN = {"oasst": "oasst1-en-train", "dolly": "dolly-15k-subset"}
LARGEST_TARGET, MOST_CHAT, NARROW_ROWS = 1000, 3000, 1200
MAUVE_BUCKETS, MAUVE_ROWS = 100, 2500
COARSE = (10, 30)
RESAMPLES = 400

# +1 where a larger figure is a better set, -1 where a smaller one is.
FREE = {
    "noisy_total_variation": -1, "noisy_jensen_shannon": -1, "noisy_coverage": 1, "noisy_frontier_score": 1,
    "total_variation": -1, "jensen_shannon": -1, "frontier_score": 1, "covered_share": 1,
    **{f"{name}_{size}": sign for size in COARSE for name, sign in (("total_variation", -1), ("frontier_score", 1))},
}  # fmt: skip
EXACT = {
    "mauve": 1, "frechet_distance": -1, "exact_total_variation": -1, "exact_frontier_score": 1,
    "precision": 1, "recall": 1, "density": 1, "coverage": 1,
}  # fmt: skip
SCOPES: Mapping[str, tuple[str, ...]] = {
    "all": ("corpus",),
    "pools": ("corpus", "num_bins", "noise", "rule"),
    "within": ("corpus", "pool"),
}


@dataclass(frozen=True)
class Corpus:
    """Vectors of real rows, and of pools by name."""

    name: str
    real: Vectors
    pools: Mapping[str, Vectors]


@dataclass(frozen=True)
class Task:
    """What a rule may read: the pool with its bins and vectors, the votes, and how many rows to give."""

    pool: pl.DataFrame
    vectors: Vectors
    votes: Integers
    centroids: Vectors
    noise: float
    target: int
    seed: int


def unfiltered(task: Task) -> Integers:
    return np.random.default_rng(task.seed).permutation(task.pool.height)[: task.target]


def paper(task: Task) -> Integers:
    counts = np.bincount(task.pool["bin_id"], minlength=len(task.votes))
    # The paper divides by a public number of units; the noisy sum stands for it.
    units = max(1, int(task.votes.sum()))
    wanted = paper_quotas(task.votes, counts, num_units=units, target_size=task.target)
    return resample(task.pool, quotas=wanted, seed=task.seed).rows["row"].to_numpy()


def of_the_product(rule: Rule, task: Task) -> Integers:
    """Rows of exactly the target size."""
    rows, _ = taken_by(
        rule,
        NoisyHistogram(task.votes, task.noise),
        pool=task.pool,
        vectors=task.vectors,
        centroids=task.centroids,
        target_size=task.target,
        seed=task.seed,
    )
    return rows["row"].to_numpy()


# A new rule is one entry: rows of the pool to keep, as int64 (any number,), from a task.
RULES: Mapping[str, Callable[[Task], Integers]] = {
    "unfiltered": unfiltered,
    "paper": paper,
    "exact_size": partial(of_the_product, "paper"),
    "smoothed": partial(of_the_product, "smoothed"),
}


def corpora(folder: Path, cache: Path) -> Iterator[Corpus]:
    """Each human corpus as the real one: two thirds of it are real rows, one third the best pool."""
    human = {name: cached_vectors(texts_of(folder / INSTRUCTIONS, source), cache) for name, source in HUMAN.items()}
    made = {
        name: cached_vectors(texts_of(folder / RESPONSES, source, column="instruction"), cache)
        for name, source in (("gpteacher", "gpteacher-roleplay"), ("alpaca", "llamafactory-alpaca-en-demo"))
    }
    made["chit-chat"] = cached_vectors(texts_of(folder / CHAT, "chitchat-dataset", most=MOST_CHAT), cache)
    prompts = (texts_of(folder / INSTRUCTIONS, source) for source in ("arena-hard-v0.1", "awesome-chatgpt-prompts"))
    made["prompts"] = np.concatenate([cached_vectors(texts, cache) for texts in prompts])
    for name, other in (("oasst", "dolly"), ("dolly", "oasst")):
        rows = np.random.default_rng(0).permutation(len(human[name]))
        real, same = np.split(human[name][rows], [2 * len(rows) // 3])
        strangers = {other: human[other], **made}
        towards = np.argsort(-(human[other] @ human[other][0]), kind="stable")
        pools = {
            "same": same,
            **strangers,
            "all others": np.concatenate(list(strangers.values())),
            "half same": np.concatenate([same, made["gpteacher"][: len(same)]]),
            "same and chit-chat": np.concatenate([same, made["chit-chat"]]),
            "narrow": human[other][towards[:NARROW_ROWS]],
        }
        yield Corpus(name, real, pools)


def free_figures(rows: Integers, votes: Integers, noise: float, posteriors: Mapping[int, Any]) -> dict[str, float]:
    """The figures of the quality report for the rows' bins."""
    num_bins = len(votes)
    counts = np.bincount(rows, minlength=num_bins)
    noisy = agreement.agreement_figures(rows, votes, noise_stddev=noise)
    noisy_score = float(agreement.frontier_scores(agreement.noisy_shares(votes), counts / counts.sum()))
    figures = {f"noisy_{name}": value for name, value in (noisy | {"frontier_score": noisy_score}).items()}
    for size, (posterior, groups) in posteriors.items():
        ending = f"_{size}" if size else ""
        coarse = np.bincount(groups, weights=counts)
        estimates = agreement.estimated_figures(coarse, posterior)
        figures |= {f"{name}{ending}": estimate.value for name, estimate in estimates.items()}
        figures |= {
            f"{name}{ending}_{end}": getattr(estimates[name], end) for name in estimates for end in ("low", "high")
        }
    return figures


def exact_figures(real_bins: Integers, rows: Integers, num_bins: int) -> dict[str, float]:
    real, synthetic = (np.bincount(each, minlength=num_bins) / len(each) for each in (real_bins, rows))
    return {
        "exact_total_variation": agreement.total_variation(real, synthetic),
        "exact_frontier_score": float(agreement.frontier_scores(real, synthetic)),
    }


def vector_figures(corpus: Corpus, vectors: Vectors) -> dict[str, float]:
    """Exact figures that no bins of the votes take part in."""
    return {
        "mauve": mauve(corpus.real[:MAUVE_ROWS], vectors, num_buckets=MAUVE_BUCKETS, seed=0),
        "frechet_distance": frechet_distance(corpus.real, vectors),
        **neighbor_figures(corpus.real, vectors, seed=0),
    }


def measure(corpus: Corpus, given: argparse.Namespace) -> Iterator[pl.DataFrame]:
    """The sets of each pool; what an earlier run kept in the folder `--rows` is not measured again."""
    for name, pool in corpus.pools.items():
        kept = given.rows / f"{corpus.name} {name}.parquet" if given.rows else None
        if kept is not None and kept.exists():
            yield pl.read_parquet(kept)
            continue
        rows = pl.DataFrame(list(measure_pool(corpus, name, pool, given)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(kept)
        yield rows


def measure_pool(corpus: Corpus, name: str, pool: Vectors, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a synthetic set: what it is, its free figures and its exact ones."""
    target = min(LARGEST_TARGET, len(pool) // 2)
    known: dict[bytes, dict[str, float]] = {}
    for num_bins in given.bins:
        if num_bins > len(pool) // 2:
            continue
        centroids = fit_bins(pool, num_bins=num_bins, seed=0)
        pool_bins, real_bins = nearest_bin(pool, centroids), nearest_bin(corpus.real, centroids)
        counts = np.bincount(pool_bins, minlength=num_bins)
        table = pl.DataFrame({"synthetic_id": np.arange(len(pool)), "bin_id": pool_bins, "row": np.arange(len(pool))})
        for noise in given.noises:
            votes = noisy(np.bincount(real_bins, minlength=num_bins), noise, given.seed)
            posteriors = all_posteriors(votes, noise, counts, centroids)
            task = Task(table, pool, votes, centroids, noise, target, seed=0)
            for rule, choose in RULES.items():
                rows = np.sort(choose(task))
                key = rows.tobytes()
                if key not in known:
                    known[key] = vector_figures(corpus, pool[rows])
                yield {
                    "corpus": corpus.name, "pool": name, "num_bins": num_bins, "noise": noise, "rule": rule,
                    **{f"free/{k}": v for k, v in free_figures(pool_bins[rows], votes, noise, posteriors).items()},
                    **{f"exact/{k}": v for k, v in known[key].items()},
                    **{f"exact/{k}": v for k, v in exact_figures(real_bins, pool_bins[rows], num_bins).items()},
                }  # fmt: skip


def noisy(exact: Integers, noise: float, seed: int) -> Integers:
    """Votes with replayable noise, rounded: good enough for a benchmark on public rows, and no release."""
    return np.rint(exact + np.random.default_rng(seed).normal(0, noise, len(exact))).astype(np.int64)


def all_posteriors(
    votes: Integers, noise: float, counts: Integers, centroids: Vectors
) -> dict[int, tuple[VotePosterior, Integers]]:
    """Posteriors and coarse bins by the number of coarse bins, 0 for the bins themselves."""
    fine = vote_posterior(votes, noise_stddev=noise, unvoted_counts=counts, seed=0)
    groups = {size: coarse_bins(centroids, num_groups=size) for size in COARSE}
    return {0: (fine, np.arange(len(votes)))} | {size: (coarser(fine, group), group) for size, group in groups.items()}


def coarser(posterior: VotePosterior, groups: Integers) -> VotePosterior:
    """The draws over coarser bins: `groups` (num_bins,) names the coarse bin, from 0, of each bin."""
    return VotePosterior(posterior.shares @ np.eye(int(groups.max()) + 1)[groups])


def coarse_bins(centroids: Vectors, *, num_groups: int) -> Integers:
    """By Ward's method, the coarse bin, from 0, of each of the centroids (num_bins, d), int64 (num_bins,).

    There are `num_groups` of them, or as many as there are bins where those are fewer.
    """
    if len(centroids) <= num_groups:
        return np.arange(len(centroids), dtype=np.int64)
    tree = linkage(centroids.astype(np.float64), method="ward")
    groups: Integers = fcluster(tree, num_groups, criterion="maxclust").astype(np.int64) - 1
    return groups


def correlations(rows: pl.DataFrame) -> dict[str, Any]:
    """By scope, exact figure and free figure: Spearman's and Kendall's coefficient, and an interval of the former."""
    found: dict[str, Any] = {}
    for scope, keys in SCOPES.items():
        groups = [group for _, group in rows.group_by(keys, maintain_order=True) if group.height > 3]
        if not groups:
            continue
        for exact, exact_sign in EXACT.items():
            for free, free_sign in FREE.items():
                sign = exact_sign * free_sign
                found.setdefault(scope, {}).setdefault(exact, {})[free] = _correlation(groups, free, exact, sign, scope)
    return found


def _correlation(groups: list[pl.DataFrame], free: str, exact: str, sign: int, scope: str) -> dict[str, float]:
    generator = np.random.default_rng(0)
    names = sorted({name for group in groups for name in group["pool"]})
    # Where a group is one pool, groups are drawn; else pools, the same ones in every group.
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    of_groups = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES)
    resampled, plain, kendall = [], [], []
    for group in groups:
        x, y = (sign_ * group[name].to_numpy() for sign_, name in ((sign, f"free/{free}"), (1, f"exact/{exact}")))
        places = np.array([names.index(name) for name in group["pool"]])
        plain.append(_weighted_rank_correlations(x, y, np.ones((1, len(x))))[0])
        resampled.append(_weighted_rank_correlations(x, y, drawn[:, places].astype(np.float64)))
        kendall.append(kendalltau(x, y).statistic)
    values = np.array(plain)
    over = of_groups @ np.nan_to_num(values) / len(groups) if scope == "within" else np.nanmean(resampled, axis=0)
    low, high = np.nanquantile(over, [0.025, 0.975]).tolist()
    return {"spearman": float(np.nanmean(values)), "low": low, "high": high, "kendall": float(np.nanmean(kendall))}


def _weighted_rank_correlations(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman's coefficient of x and y (n,) under each row of weights (m, n); ranks are not taken anew."""
    ranks = np.stack([rankdata(x), rankdata(y)])
    shares = weights / weights.sum(axis=1, keepdims=True).clip(1)
    means = shares @ ranks.T
    first, second = (ranks[side] - means[:, side : side + 1] for side in (0, 1))
    covariances = (shares * first * second).sum(axis=1)
    variances = (shares * first**2).sum(axis=1) * (shares * second**2).sum(axis=1)
    return np.where(variances > 1e-12, covariances / np.sqrt(variances.clip(1e-12)), np.nan)


def errors(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """By noise, bins and rule: the exact total variation, its noisy and estimated values, and the hits."""
    hit = (pl.col("exact/exact_total_variation") >= pl.col("free/total_variation_low")) & (
        pl.col("exact/exact_total_variation") <= pl.col("free/total_variation_high")
    )
    return (
        rows.group_by("num_bins", "noise", "rule", maintain_order=True)
        .agg(
            sets=pl.len(),
            exact=pl.col("exact/exact_total_variation").mean(),
            noisy=pl.col("free/noisy_total_variation").mean(),
            estimated=pl.col("free/total_variation").mean(),
            mean_absolute_error=(pl.col("free/total_variation") - pl.col("exact/exact_total_variation")).abs().mean(),
            noisy_mean_absolute_error=(pl.col("free/noisy_total_variation") - pl.col("exact/exact_total_variation"))
            .abs()
            .mean(),
            interval_hits=hit.mean(),
        )
        .to_dicts()
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the three Parquet files are")
    parser.add_argument("--cache", type=Path, default=Path(".vectors"), help="folder for vectors")
    parser.add_argument("--rows", type=Path, help="folder that keeps the figures of each pool")
    parser.add_argument("--noises", type=float, nargs="+", default=[10, 30])
    parser.add_argument("--bins", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seed", type=int, default=0, help="of the votes' noise")
    given = parser.parse_args()
    rows = pl.concat([each for corpus in corpora(given.folder, given.cache) for each in measure(corpus, given)])
    store(
        "agreement", {"sets": rows.height, "correlations": correlations(rows), "total_variation": errors(rows)}, given
    )


if __name__ == "__main__":
    main()
