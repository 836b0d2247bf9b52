"""Inputs and metadata of the quality report and of the restricted report; the evaluation package computes figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from dp_assets.arrays import Integers, Vectors
from dp_assets.artifacts import TRAIN_SPLIT, Adapter, Document, PrivateTable
from dp_assets.evaluation.quality import ComparedSets, SyntheticSet, sets_of
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.generation.settings import GeneratorSettings
from dp_assets.privacy.metadata import RESTRICTED
from dp_assets.selection.bins import nearest_bin
from dp_assets.selection.filtering import filter_pool
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.settings import SelectionSettings

Encode = Callable[[Sequence[str]], Vectors]
LIKELIHOOD_BATCH = 32
HEADLINES = ("estimated_total_variation", "estimated_frontier_score", "total_variation", "jensen_shannon")


def set_in_bins(texts: Sequence[str], vectors: Vectors, centroids: Vectors) -> SyntheticSet:
    """Return texts with their vectors and the nearest bin of each."""
    return SyntheticSet(texts, nearest_bin(vectors, centroids), vectors)


def filtered_set(pool: pl.DataFrame, filtered: pl.DataFrame, encode: Encode) -> SyntheticSet:
    """Return the filtered rows with their vectors. `encode` computes those of the top-up, which have none yet."""
    from_pool = filtered.join(pool.select("synthetic_id", "vector"), on="synthetic_id", how="inner")
    added = filtered.join(pool, on="synthetic_id", how="anti")
    kept_vectors, texts = from_pool["vector"].to_numpy(), added["text"].to_list()
    vectors = np.concatenate([kept_vectors, encode(texts)]) if texts else kept_vectors
    rows = pl.concat([from_pool.select("text", "bin_id"), added.select("text", "bin_id")])
    return SyntheticSet(rows["text"].to_list(), rows["bin_id"].to_numpy(), vectors)


def compared_sets(
    pool: pl.DataFrame,
    filtered: pl.DataFrame,
    baseline: Sequence[str],
    histogram: NoisyHistogram,
    settings: SelectionSettings,
    *,
    centroids: Vectors,
    encode: Encode,
) -> ComparedSets:
    """Return the sets that the quality report compares, each text with its bin and its vector.

    Args:
      pool: the pool, with vectors.
      filtered: the filtered set.
      baseline: texts of the untrained model.
      histogram: the noisy votes of the bins.
      settings: the settings by which the filtered set was chosen; the baseline is resampled by them too.
      centroids: float32 (num_bins, d).
      encode: the embedder.
    """
    in_bins = set_in_bins(baseline, encode(baseline), centroids)
    pool_set = set_in_bins(pool["text"].to_list(), pool["vector"].to_numpy(), centroids)
    kept = filtered_set(pool, filtered, encode)
    share = len(kept.texts) / len(pool_set.texts)
    resampled = resampled_to_votes(in_bins, histogram, settings, centroids=centroids, share=share)
    return ComparedSets(pool_set, kept, in_bins, resampled)


def resampled_to_votes(
    drawn: SyntheticSet,
    histogram: NoisyHistogram,
    settings: SelectionSettings,
    *,
    centroids: Vectors,
    share: float,
) -> SyntheticSet | None:
    """Return a subset of a set, resampled to the noisy votes by the rule of the filtered set, without a top-up.

    Returns None if the set has no vectors, if no noisy vote is positive, or if the share amounts to no row.

    Args:
      drawn: the set to resample.
      histogram: the noisy votes of the bins.
      settings: the settings by which the filtered set was chosen.
      centroids: float32 (num_bins, d).
      share: the fraction of the rows to keep.
    """
    texts, bins, vectors = drawn
    rows = [f"{number:09d}" for number in range(len(texts))]
    pool = pl.DataFrame({"synthetic_id": rows, "text": texts, "bin_id": bins, "origin": "baseline"})
    target_size = int(share * len(texts))
    if vectors is None or not target_size or not (histogram.votes > 0).any():
        return None
    chosen = filter_pool(
        pool,
        histogram,
        settings.model_copy(update={"target_size": target_size, "top_up_samples": 0}),
        vectors=[vectors],
        centroids=centroids,
        draw=lambda *_: [],
        embed=lambda _: vectors[:0],
    ).rows
    kept = chosen["synthetic_id"].cast(pl.Int64).to_numpy()
    return SyntheticSet(chosen["text"].to_list(), bins[kept], vectors[kept])


def with_page(report: Document, sets: ComparedSets, centroids: Vectors, noisy_votes: Integers, seed: int) -> Document:
    """Return the quality report with the map of pool and filtered set in its data, and as an HTML page.

    Args:
      report: the report.
      sets: the compared sets; those without vectors cannot be drawn.
      centroids: float32 (num_bins, d).
      noisy_votes: the noisy votes of the bins.
      seed: the public seed of the map.
    """
    from dp_assets.evaluation.synthetic_map import BinnedSet, synthetic_map
    from dp_assets.reports.quality_page import quality_page

    pool_map, filtered_map = (
        BinnedSet(each.texts, vectors, each.bin_ids)
        for each in (sets.pool, sets.filtered)
        if (vectors := each.vectors) is not None
    )
    drawn = synthetic_map(pool_map, filtered_map, noisy_votes=noisy_votes, centroids=centroids, seed=seed)
    data = {**report.data, "map": drawn.to_json()}
    return replace(report, data=data, html=quality_page(data, charge_ids=report.charge_ids))


def quality_metadata(report: Document) -> dict[str, Any]:
    """Return the report, its pictures and its headline figures as metadata."""
    from dp_assets.evaluation.synthetic_map import SyntheticMap
    from dp_assets.reports.pictures import agreement_drawing, map_markdown, votes_drawing

    figures = {
        f"quality/{name}_{when}": float(report.data[when][name]) for when in sets_of(report.data) for name in HEADLINES
    }
    return figures | {
        "agreement": dg.MetadataValue.md(agreement_drawing(report.data).markdown()),
        "votes": dg.MetadataValue.md(votes_drawing(report.data).markdown()),
        "map": dg.MetadataValue.md(map_markdown(SyntheticMap.from_json(report.data["map"]))),
        "report": dg.MetadataValue.md(report.markdown),
    }


@dataclass(frozen=True)
class SyntheticRows:
    """The released rows that are compared with real ones: `pool` with vectors, `filtered`, and the bins' centroids."""

    pool: pl.DataFrame
    filtered: pl.DataFrame
    centroids: Vectors


def restricted_rows(
    cohort: str,
    embeddings: pl.LazyFrame,
    instructions: pl.LazyFrame,
    *,
    synthetic: SyntheticRows,
    load_model: Callable[[], Any],
    adapter: Adapter,
    generator: GeneratorSettings,
    report: ReportSettings,
) -> pl.LazyFrame:
    """Return every restricted figure of one cohort: columns `metric`, `subject`, `value`. The result is private.

    Args:
      cohort: the cohort.
      embeddings: the real vectors, private.
      instructions: the real instructions, private.
      synthetic: the released rows to compare with.
      load_model: loads the base model and its tokenizer.
      adapter: the generator's adapter.
      generator: the generator's settings.
      report: the settings of the figures.
    """
    from dp_assets.evaluation.restricted import copy_figures, restricted_figures

    of_cohort = pl.col("cohort") == cohort
    real = instructions.filter(of_cohort).select("text", "split").collect()
    pool, filtered = synthetic.pool, synthetic.filtered
    from_pool = filtered.join(pool, on="synthetic_id", how="inner")
    figures = restricted_figures(
        real_vectors=embeddings.filter(of_cohort).select("vector").collect()["vector"].to_numpy(),
        synthetic_vectors={"pool": pool["vector"].to_numpy(), "filtered": from_pool["vector"].to_numpy()},
        centroids=synthetic.centroids,
        mauve_buckets=report.mauve_buckets,
        seed=report.seed,
    )
    copies = copy_figures(
        real_texts=real["text"].to_list(),
        synthetic_texts={"pool": pool["text"].to_list(), "filtered": filtered["text"].to_list()},
    )
    held_out = real.filter(pl.col("split") != TRAIN_SPLIT)["text"].to_list()
    losses = held_out_losses(held_out, generator, load_model=load_model, adapter=adapter)
    return pl.concat([figures, copies, losses]).lazy()


def restricted_metadata(report: PrivateTable) -> dict[str, float]:
    """Return the restricted figures as metadata. To be called for public sources only."""
    kept: list[pl.DataFrame] = []
    report.store(lambda rows: kept.append(rows.collect()))
    figures = kept[0].drop_nans("value").select("metric", "subject", "value").iter_rows()
    return {f"{RESTRICTED}{metric}_{subject.replace(' ', '_')}": value for metric, subject, value in figures}


def held_out_losses(
    texts: Sequence[str], settings: GeneratorSettings, *, load_model: Callable[[], Any], adapter: Adapter
) -> pl.DataFrame:
    """Return the loss on held-out real texts, in nats per token, of the base model (epsilon 0) and of the generator."""
    from dp_assets.generation.adapters import attach_adapter
    from dp_assets.generation.likelihood import mean_token_loss
    from dp_assets.generation.prompts import generator_prompt_ids

    base, tokenizer = load_model()
    measure = partial(
        mean_token_loss,
        tokenizer=tokenizer,
        texts=texts,
        prompt_ids=generator_prompt_ids(tokenizer, prompt=settings.prompt),
        max_tokens=settings.max_tokens,
        batch_size=LIKELIHOOD_BATCH,
    )
    untrained = measure(base)
    trained = measure(attach_adapter(base, adapter))
    return pl.DataFrame(
        {
            "metric": ["held_out_token_loss"] * 2,
            "subject": ["base model", "generator"],
            "value": [untrained, trained],
        }
    )
