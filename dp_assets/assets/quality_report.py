"""The asset `quality_report`."""

import dagster as dg

from dp_assets.artifacts import SHORTAGE, Document, Table, union_of_ids
from dp_assets.evaluation.quality import quality_report as make_report
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.bin_arrays import centroids_of, histogram_of
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.reports import compared_sets, quality_metadata, with_page
from dp_assets.stages.sampling import generator_loading
from dp_assets.vocabulary import Partition
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

    centroids, histogram = centroids_of(synthetic_bins), histogram_of(dp_histogram)
    load = generator_loading(language_model, None, profile.sampling, level=Partition.of(context).level)
    sets = compared_sets(
        synthetic_pool.rows.join(synthetic_embeddings.rows, on="synthetic_id").collect(),
        filtered_instructions.collect(),
        sample_baseline(load, profile.baseline_sampling),
        histogram,
        profile.selection,
        centroids=centroids,
        encode=embedder.encode,
    )
    report = make_report(
        sets,
        histogram,
        profile.report,
        target=profile.selection.target_size,
        shortage=filtered_instructions.record.get(SHORTAGE, 0),
        charge_ids=union_of_ids(synthetic_pool, synthetic_bins, filtered_instructions, dp_histogram),
    )
    report = with_page(report, sets, centroids, histogram.votes, profile.report.seed)
    return AssetValue(report, quality_metadata(report))
