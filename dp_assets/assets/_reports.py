"""What the two reports gather before the evaluation package computes."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT, Adapter, Document
from dp_assets.evaluation.quality import SyntheticSet
from dp_assets.selection.bins import nearest_bin

Vectors = npt.NDArray[np.float32]
Bins = npt.NDArray[np.int64]
LIKELIHOOD_BATCH = 32


def set_in_bins(texts: Sequence[str], vectors: Vectors, centroids: Vectors) -> SyntheticSet:
    """Texts with the bin of each."""
    return SyntheticSet(texts, nearest_bin(vectors, centroids))


def quality_metadata(
    report: Document, noisy_votes: Bins, noise_stddev: float, filtered_bins: Bins, pool_bins: Bins
) -> dict[str, Any]:
    """The report, its picture and its headline figures for the asset's page."""
    from dp_assets.evaluation.agreement import bin_shares, noisy_shares
    from dp_assets.evaluation.plots import to_markdown_png, votes_figure

    num_bins, total = len(noisy_votes), max(1, int(noisy_votes.clip(0).sum()))
    picture = votes_figure(
        noisy_shares(noisy_votes),
        bin_shares(pool_bins, num_bins),
        bin_shares(filtered_bins, num_bins),
        noise_stddev / total,
    )
    figures = {
        f"quality/{name}_{when}": float(report.data[when][name])
        for when in ("before", "after", "baseline")
        for name in ("total_variation", "jensen_shannon")
    }
    return figures | {
        "votes": dg.MetadataValue.md(to_markdown_png(picture, "Noisy votes against the pool and the filtered set")),
        "report": dg.MetadataValue.md(report.markdown),
    }


def restricted_rows(
    cohort: str,
    embeddings: pl.LazyFrame,
    instructions: pl.LazyFrame,
    *,
    pool: pl.DataFrame,
    filtered: pl.DataFrame,
    centroids: Vectors,
    load_model: Callable[[], Any],
    adapter: Adapter,
    prompt: Any,
    max_tokens: int,
    mauve_buckets: int,
    seed: int,
) -> pl.LazyFrame:
    """Every restricted figure of one cohort: columns `metric`, `subject`, `value`. Its result is private."""
    from dp_assets.evaluation.restricted import copy_figures, restricted_figures

    of_cohort = pl.col("cohort") == cohort
    real = instructions.filter(of_cohort).select("text", "split").collect()
    from_pool = filtered.join(pool, on="synthetic_id", how="inner")
    figures = restricted_figures(
        real_vectors=embeddings.filter(of_cohort).select("vector").collect()["vector"].to_numpy(),
        synthetic_vectors={"pool": pool["vector"].to_numpy(), "filtered": from_pool["vector"].to_numpy()},
        centroids=centroids,
        mauve_buckets=mauve_buckets,
        seed=seed,
    )
    copies = copy_figures(
        real_texts=real["text"].to_list(),
        synthetic_texts={"pool": pool["text"].to_list(), "filtered": filtered["text"].to_list()},
    )
    held_out = real.filter(pl.col("split") != TRAIN_SPLIT)["text"].to_list()
    losses = held_out_losses(held_out, load_model=load_model, adapter=adapter, prompt=prompt, max_tokens=max_tokens)
    return pl.concat([figures, copies, losses]).lazy()


def held_out_losses(
    texts: Sequence[str], *, load_model: Callable[[], Any], adapter: Adapter, prompt: Any, max_tokens: int
) -> pl.DataFrame:
    """Nats per token on held-out real texts, of the base model (epsilon zero) and of the generator."""
    from dp_assets.generation.adapters import attach_adapter
    from dp_assets.generation.likelihood import mean_token_loss
    from dp_assets.generation.prompts import generator_prompt_ids

    base, tokenizer = load_model()
    prompt_ids = generator_prompt_ids(tokenizer, prompt=prompt)
    measure = {"prompt_ids": prompt_ids, "max_tokens": max_tokens, "batch_size": LIKELIHOOD_BATCH}
    untrained = mean_token_loss(base, tokenizer, texts, **measure)
    trained = mean_token_loss(attach_adapter(base, adapter), tokenizer, texts, **measure)
    return pl.DataFrame(
        {
            "metric": ["held_out_token_loss"] * 2,
            "subject": ["base model", "generator"],
            "value": [untrained, trained],
        }
    )
