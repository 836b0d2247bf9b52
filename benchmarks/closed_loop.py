"""How far the closed loop gets below the limit of a one-shot pool with the same number of samples.

    python -m benchmarks.closed_loop [--data FILE] [--source NAME] [--generator FOLDER] [--pool 256] [--budget 256]
                                     [--bins 16] [--target 200] [--seeds 3] [--kept FILE]

Real rows vote for the bins of a pool under discrete noise, the quotas follow from the noisy votes, and four sets of
exactly the target size are compared:

    pool        the pool alone, as many samples as `--pool`
    larger_pool a one-shot pool of `--pool` + `--budget` samples
    unsteered   the pool, and a top-up of at most `--budget` samples drawn as the pool was
    steered     the pool, and the closed loop with at most `--budget` samples

The larger pool and the unsteered top-up share their samples, so all that differs is what is done with them. Quotas,
bins and noise are the same for all four, and each seed draws noise and attempts anew. The real rows are looked at
exactly here, so they must be public: those of `--data`, or the packaged chit-chat. The generator is the public base
model, or the adapter in `--generator` (the folder of a released `dp_generator`) on it. Samples are kept in `--kept`, so
that a stopped benchmark goes on.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.harness import options, store, texts
from dp_assets.alignment.answers_store import AnswersStore
from dp_assets.arrays import Integers
from dp_assets.artifacts import adapter_digest
from dp_assets.evaluation.agreement import bin_shares, noisy_shares, total_variation
from dp_assets.evaluation.restricted import mauve
from dp_assets.evaluation.text_figures import diversity_figures
from dp_assets.generation.drawing import generator_sampler, with_adapter
from dp_assets.generation.settings import SamplingSettings
from dp_assets.progress import progress
from dp_assets.selection.bins import fit_bins, nearest_bin
from dp_assets.selection.resample import quotas, resample_exactly, rows_in_bins, shortages
from dp_assets.selection.top_up import COLUMNS, Draw, Embed, TopUp, top_up
from dp_assets.stages.top_up import kept
from dp_assets.vocabulary import Steering
from resources.models.loaders import Embedder, LanguageModel
from resources.storage.artifact_files import read_artifact
from resources.storage.zones import data_home

ROUND = 32
SAMPLING = SamplingSettings(
    prompt="user_turn", num_samples=ROUND, max_new_tokens=20, temperature=1.0, top_p=0.95, batch_size=32
)
DRAWN_BY = SAMPLING.model_dump(exclude={"num_samples", "seed", "engine"})
MAUVE_BUCKETS = 40
UNSTEERED: Steering = ((), "")


@dataclass(frozen=True)
class Scene:
    """What all seeds share: a pool, more samples drawn alike, bins, and the real rows' vectors and exact votes."""

    pool: pl.DataFrame
    more: list[str]
    larger_pool: pl.DataFrame
    centroids: npt.NDArray[np.float32]
    real_vectors: npt.NDArray[np.float32]
    votes: Integers


def main() -> None:
    given = arguments()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        kept_in = given.kept or Path(folder) / "samples.jsonl"
        draw = drawing(stack.enter_context(AnswersStore.opened(kept_in)), given.generator)
        embed = Embedder().encode
        scene = scene_of(given, draw, embed)
        runs = [run_of(scene, given, draw, embed, seed=seed) for seed in range(given.seeds)]
    store("closed_loop", {"real_rows": len(scene.real_vectors), **averages(runs), "runs": runs}, given)


def arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--source", help="only rows of --data with this value in the column source")
    parser.add_argument("--generator", type=Path, help="folder of a released dp_generator; else the public base model")
    parser.add_argument("--rows", type=int, default=800, help="real rows that vote")
    parser.add_argument("--pool", type=int, default=256, help="samples of the pool")
    parser.add_argument("--budget", type=int, default=256, help="samples beyond the pool")
    parser.add_argument("--bins", type=int, default=16)
    parser.add_argument("--noise", type=float, default=4.0, help="stddev of the noise of each bin's votes")
    parser.add_argument("--target", type=int, default=200, help="rows of the filtered sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, help="file for samples, so that a stopped run goes on")
    return parser.parse_args()


def drawing(answers: AnswersStore, generator: Path | None) -> Draw:
    """Texts for steerings, from the kept ones or from the model."""
    language_model = LanguageModel(cache_root=str(data_home() / "models"))
    if generator is not None:
        adapter: Any = read_artifact(generator)
        draw = generator_sampler(with_adapter(language_model.load, adapter), SAMPLING)
        return kept(draw, answers, {"generator": adapter_digest(adapter.weights, adapter.config), **DRAWN_BY})
    load = cache(language_model.load)

    def draw_of_base(steerings: Sequence[Steering], seed: int) -> list[str]:
        with progress("sampling the base model", len(steerings), "samples") as advance:
            return generator_sampler(load, SAMPLING, advance=advance)(steerings, seed)

    return kept(draw_of_base, answers, {"generator": "base", **DRAWN_BY})


def scene_of(given: argparse.Namespace, draw: Draw, embed: Embed) -> Scene:
    drawn = draw_unsteered(draw, given.pool + given.budget)
    first, more = drawn[: given.pool], drawn[given.pool :]
    vectors = embed(distinct(first))
    centroids = fit_bins(vectors, num_bins=given.bins, seed=0)
    real_vectors = embed(real_texts(given))
    return Scene(
        pool=frame(distinct(first), embed, centroids),
        more=more,
        larger_pool=frame(distinct(drawn), embed, centroids),
        centroids=centroids,
        real_vectors=real_vectors,
        votes=np.bincount(nearest_bin(real_vectors, centroids), minlength=given.bins),
    )


def draw_unsteered(draw: Draw, number: int) -> list[str]:
    starts = range(0, number, ROUND)
    return [text for start in starts for text in draw([UNSTEERED] * min(ROUND, number - start), start)]


def distinct(drawn: Sequence[str]) -> list[str]:
    return [text for text in dict.fromkeys(drawn) if text]


def real_texts(given: argparse.Namespace) -> list[str]:
    if given.source is None:
        return texts(given.data, limit=given.rows)
    rows = pl.read_parquet(given.data).filter(pl.col("source") == given.source)
    return rows["text"].sample(given.rows, seed=0, shuffle=True).to_list()


def frame(rows: Sequence[str], embed: Embed, centroids: npt.NDArray[np.float32]) -> pl.DataFrame:
    ids = [f"pool-{number:06d}" for number in range(len(rows))]
    bins = nearest_bin(embed(rows), centroids)
    return pl.DataFrame({"synthetic_id": ids, "text": list(rows), "bin_id": bins, "origin": "pool"})


def run_of(scene: Scene, given: argparse.Namespace, draw: Draw, embed: Embed, *, seed: int) -> dict[str, Any]:
    """Noisy votes, and the figures of all four sets."""
    # Seeded, so that a run repeats; the rounded Gaussian is no mechanism, and the real rows are public.
    noise = np.random.default_rng(seed).normal(0, given.noise, len(scene.votes))
    noisy_votes = scene.votes + np.rint(noise).astype(np.int64)
    wanted = quotas(noisy_votes, target_size=given.target)

    def topped_up(draw: Draw, *, steered: bool) -> TopUp:
        return top_up(
            scene.pool,
            shortage=shortages(scene.pool, quotas=wanted),
            draw=draw,
            embed=embed,
            centroids=scene.centroids,
            max_samples=given.budget,
            steered=steered,
            seed=seed,
        )

    unsteered, steered = topped_up(served(scene.more), steered=False), topped_up(draw, steered=True)
    sets = {
        "pool": scene.pool,
        "larger_pool": scene.larger_pool,
        "unsteered": pl.concat([scene.pool.select(COLUMNS.names()), unsteered.rows]),
        "steered": pl.concat([scene.pool.select(COLUMNS.names()), steered.rows]),
    }
    figures = {
        name: figures_of(rows, wanted, noisy_votes, scene, embed, target=given.target, seed=seed)
        for name, rows in sets.items()
    }
    return {
        "seed": seed,
        "sets": figures,
        "loop": loop_figures(steered),
        "unsteered_samples": unsteered.num_drawn,
        "one_shot_samples_for_the_same": samples_needed(
            scene.larger_pool, wanted, given.pool + given.budget, aim=int(figures["steered"]["shortage"])
        ),
    }


def served(more: Sequence[str]) -> Draw:
    """Draws that hand out texts that were drawn before, in their order."""
    left = iter(more)
    return lambda steerings, seed: [next(left) for _ in steerings]


def figures_of(
    rows: pl.DataFrame,
    wanted: Integers,
    noisy_votes: Integers,
    scene: Scene,
    embed: Embed,
    *,
    target: int,
    seed: int,
) -> dict[str, float]:
    """Of the set that is resampled from `rows`."""
    resampled = resample_exactly(rows, quotas=wanted, target_size=target, seed=seed)
    shares = bin_shares(resampled.rows["bin_id"].to_numpy(), len(wanted))
    chosen = resampled.rows["text"].to_list()
    vectors = embed(chosen)
    return {
        "shortage": int(resampled.shortage.sum()),
        "bins_short": int((resampled.shortage > 0).sum()),
        "total_variation_to_noisy_votes": total_variation(shares, noisy_shares(noisy_votes)),
        "total_variation_to_exact_votes": total_variation(shares, scene.votes / scene.votes.sum()),
        "mauve": mauve(scene.real_vectors, vectors, num_buckets=MAUVE_BUCKETS, seed=0),
        "nearest_cosine": nearest_cosine(vectors),
        **diversity_figures(chosen),
    }


def nearest_cosine(vectors: npt.NDArray[np.float32]) -> float:
    """Median over rows of the cosine to the most similar other row: how alike the rows of a set are."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float(np.median(cosines.max(axis=1)))


def loop_figures(result: TopUp) -> dict[str, Any]:
    accepted = {
        str(strategy): result.kept[strategy] / number if number else None for strategy, number in result.drawn.items()
    }
    return {
        "samples": result.num_drawn,
        "rows": result.rows.height,
        "copies": result.copies,
        "bins_given_up": len(result.given_up),
        "drawn": {str(strategy): number for strategy, number in result.drawn.items()},
        "kept": {str(strategy): number for strategy, number in result.kept.items()},
        "accepted": accepted,
    }


def samples_needed(larger_pool: pl.DataFrame, wanted: Integers, drawn: int, *, aim: int) -> int | None:
    """Samples of a one-shot pool that would be as short as `aim`, if they fell as those drawn did; None: no number.

    A bin into which none of them fell counts as out of reach.
    """
    falls = rows_in_bins(larger_pool, num_bins=len(wanted)) / drawn
    for number in np.unique(np.geomspace(1, 1_000 * drawn, 2_000).astype(int)).tolist():
        if (wanted - number * falls).clip(min=0).sum() <= aim:
            return int(number)
    return None


def averages(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error over the seeds, by set and figure."""
    return {
        "mean": {
            name: {figure: mean_of([run["sets"][name][figure] for run in runs]) for figure in first}
            for name, first in runs[0]["sets"].items()
        }
    }


def mean_of(values: Sequence[float]) -> dict[str, float | None]:
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "standard_error": spread}


if __name__ == "__main__":
    main()
