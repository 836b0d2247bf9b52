"""The code location: assets, checks, jobs (the whole graph, a new snapshot), sensors, resources and the executor.

It loads without torch: modules that need torch are imported inside asset bodies.
"""

import warnings

import dagster as dg

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are a preview feature
    from dp_assets.pipeline.checks import ALL_CHECKS

from dp_assets.assets.annotated_instructions import annotated_instructions
from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.filtered_instructions import filtered_instructions
from dp_assets.assets.preference_pairs import preference_pairs
from dp_assets.assets.privacy_statement import privacy_statement
from dp_assets.assets.quality_report import quality_report
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.release_report import release_report
from dp_assets.assets.restricted_report import restricted_report
from dp_assets.assets.reward_model import reward_model
from dp_assets.assets.rlhf_model import rlhf_model
from dp_assets.assets.sft_model import sft_model
from dp_assets.assets.synthetic_bins import synthetic_bins
from dp_assets.assets.synthetic_embeddings import synthetic_embeddings
from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.pipeline.running import FULL_PIPELINE, NEW_SNAPSHOT, stage_logger
from dp_assets.pipeline.sensors import CATALOG_SENSORS, statements_follow_the_ledger
from dp_assets.settings.named import selected_profile
from resources.build import build_resources, fixed

ALL_ASSETS = (
    real_instructions,
    real_embeddings,
    dp_generator,
    synthetic_pool,
    synthetic_embeddings,
    synthetic_bins,
    dp_histogram,
    filtered_instructions,
    annotated_instructions,
    sft_model,
    preference_pairs,
    reward_model,
    rlhf_model,
    quality_report,
    restricted_report,
    privacy_statement,
    release_report,
)

full_pipeline = dg.define_asset_job(
    FULL_PIPELINE, selection=dg.AssetSelection.all(), description="The whole graph for one partition."
)
new_snapshot = dg.define_asset_job(
    NEW_SNAPSHOT,
    selection=dg.AssetSelection.assets(real_instructions, real_embeddings),
    description="The source read anew as corpus.snapshot. Charges nothing; mechanisms charge anew for a new snapshot.",
)

defs = dg.Definitions(
    assets=ALL_ASSETS,
    asset_checks=ALL_CHECKS,
    jobs=[full_pipeline, new_snapshot],
    sensors=[statements_follow_the_ledger, *CATALOG_SENSORS],
    resources=fixed(build_resources(selected_profile())),
    executor=dg.in_process_executor,
    loggers={"console": stage_logger},
)
