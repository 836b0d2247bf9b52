"""The asset `quality_report`."""

import dagster as dg

from dp_assets.artifacts import Document, Table, union_of_ids
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._bins import centroids_of, votes_of
from dp_assets.assets._release import result
from dp_assets.assets._reports import quality_metadata, set_in_bins, with_map
from dp_assets.evaluation import quality
from dp_assets.evaluation.quality import SyntheticSet
from dp_assets.partitions import Partition
from dp_assets.privacy.labels import Label
from resources.ledger import Ledger
from resources.models import Embedder, LanguageModel
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"matplotlib", "markdown"}, code_version="2")
def quality_report(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    embedder: Embedder,
    synthetic_pool: Table,
    synthetic_embeddings: Table,
    synthetic_bins: Table,
    filtered_instructions: Table,
    dp_histogram: Table,
) -> dg.MaterializeResult[Document]:
    """Utility against the noisy votes, before and after filtering and for the untrained model, at no extra cost."""
    from dp_assets.generation.drawing import sample_baseline

    plan, settings = profile.plan(Partition.of(context).level), profile.report
    centroids = centroids_of(synthetic_bins)
    filtered, votes = filtered_instructions.collect(), votes_of(dp_histogram)
    baseline = sample_baseline(language_model.load, **profile.baseline_sampling())
    pool = synthetic_pool.rows.join(synthetic_embeddings.rows, on="synthetic_id").collect()
    report = quality.quality_report(
        pool=set_in_bins(pool["text"].to_list(), pool["vector"].to_numpy(), centroids),
        filtered=SyntheticSet(filtered["text"].to_list(), filtered["bin_id"].to_numpy()),
        baseline=set_in_bins(baseline, embedder.encode(baseline), centroids),
        noisy_votes=votes,
        noise_stddev=plan.votes.noise_stddev,
        target=profile.selection.target_size,
        shortage=profile.selection.target_size - filtered.height,
        num_examples=settings.examples,
        seed=settings.seed,
        charge_ids=union_of_ids(synthetic_pool, synthetic_bins, filtered_instructions, dp_histogram),
    )
    report = with_map(report, pool, filtered, embedder.encode, centroids, votes, settings.seed)
    return result(context, report, ledger=ledger, profile=profile, extra=quality_metadata(report))
