"""The asset `filtered_instructions`."""

import dagster as dg
import polars as pl

from dp_assets.artifacts import Adapter, Table, union_of_ids
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._bins import centroids_of, votes_of
from dp_assets.assets._release import result
from dp_assets.privacy.labels import Label
from dp_assets.selection.bins import nearest_bin
from dp_assets.selection.filtering import filter_pool
from dp_assets.selection.rules import Rule
from resources.ledger import Ledger
from resources.models import Embedder, LanguageModel
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="selection", kinds={"polars", "parquet"}, code_version="2")
def filtered_instructions(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    embedder: Embedder,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    dp_histogram: Table,
    dp_generator: Adapter,
) -> dg.MaterializeResult[Table]:
    """The pool resampled to the noisy votes, short bins topped up by the generator: released, of exact size."""
    from dp_assets.generation.drawing import generator_sampler

    centroids = centroids_of(synthetic_bins)
    vectors = synthetic_embeddings.collect().sort("synthetic_id")["vector"].to_numpy()
    pool = synthetic_pool.collect().sort("synthetic_id").select("synthetic_id", "text")
    sampling = profile.sampling.model_dump(exclude={"num_samples", "seed"})
    filtered = filter_pool(
        pool.with_columns(bin_id=nearest_bin(vectors, centroids), origin=pl.lit("pool")),
        vectors=vectors,
        noisy_votes=votes_of(dp_histogram),
        noise_stddev=profile.votes.noise_stddev,
        rule=Rule(profile.selection.rule),
        centroids=centroids,
        draw=generator_sampler(language_model.load, dp_generator, **sampling),
        embed=embedder.encode,
        **profile.selection.model_dump(exclude={"rule"}),
    )
    ids = union_of_ids(synthetic_pool, synthetic_embeddings, synthetic_bins, dp_histogram, dp_generator)
    value = Table(filtered.rows.lazy(), ids)
    return result(context, value, ledger=ledger, profile=profile, extra=filtered.figures)
