"""The asset `quality_report`."""

from typing import Any

import dagster as dg

from dp_assets.artifacts import SHORTAGE, Document, Table, union_of_ids
from dp_assets.evaluation import quality
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.bin_arrays import centroids_of, noise_of, votes_of
from dp_assets.pipeline.partitions import Partition
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.reports import filtered_set, quality_metadata, resampled_to_votes, set_in_bins, with_page
from dp_assets.stages.sampling import generator_loading
from resources.models.loaders import Embedder, LanguageModel


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"matplotlib", "html"}, code_version="3")
def quality_report(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    embedder: Embedder,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    filtered_instructions: Table,
    dp_histogram: Table,
) -> AssetValue[Document]:
    """Utility against the noisy votes, before and after filtering and for the untrained model, at no extra cost."""
    from dp_assets.generation.drawing import sample_baseline

    settings, centroids, votes = profile.report, centroids_of(synthetic_bins), votes_of(dp_histogram)
    noisy: dict[str, Any] = {"noisy_votes": votes, "noise_stddev": noise_of(dp_histogram)}
    load = generator_loading(language_model, None, profile.sampling, level=Partition.of(context).level)
    drawn = sample_baseline(load, profile.baseline_sampling)
    baseline = set_in_bins(drawn, embedder.encode(drawn), centroids)
    rows = synthetic_pool.rows.join(synthetic_embeddings.rows, on="synthetic_id").collect()
    pool = set_in_bins(rows["text"].to_list(), rows["vector"].to_numpy(), centroids)
    filtered = filtered_set(rows, filtered_instructions.collect(), embedder.encode)
    share, selection = len(filtered.texts) / len(pool.texts), profile.selection.model_dump()
    report = quality.quality_report(
        pool=pool,
        filtered=filtered,
        baseline=baseline,
        baseline_filtered=resampled_to_votes(baseline, centroids=centroids, share=share, selection=selection, **noisy),
        **noisy,
        target=profile.selection.target_size,
        shortage=filtered_instructions.record.get(SHORTAGE, 0),
        num_examples=settings.examples,
        seed=settings.seed,
        charge_ids=union_of_ids(synthetic_pool, synthetic_bins, filtered_instructions, dp_histogram),
    )
    report = with_page(report, pool, filtered, centroids, votes, settings.seed)
    return AssetValue(report, quality_metadata(report))
