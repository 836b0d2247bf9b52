"""Asset checks, whose results the UI shows beside an asset. They read only released data and never decide a release."""

import dagster as dg
import numpy as np

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.corpus.schemas import SCHEMAS, SchemaError, check_schema
from dp_assets.pipeline.bin_arrays import centroids_of, histogram_of
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.plan import target_of
from dp_assets.selection.rules import apply_rule
from dp_assets.selection.vectors import assigned
from dp_assets.settings.profile import Profile
from dp_assets.statements.reading import StatementError
from dp_assets.statements.verification import verify

RELEASED_TABLES = (
    "synthetic_pool",
    "synthetic_embeddings",
    "synthetic_bins",
    "dp_histogram",
    "filtered_instructions",
    "annotated_instructions",
    "preference_pairs",
)
DISTINCT_TABLES = ("synthetic_pool", "filtered_instructions")
ADAPTERS = ("dp_generator", "sft_model", "reward_model", "rlhf_model")


def schema_check(asset: str) -> dg.AssetChecksDefinition:
    """Return a check that a table has the columns and types of its schema."""

    @dg.asset_check(asset=asset, name="schema", partitions_def=COHORTS_BY_LEVELS)
    def check(table: Table) -> dg.AssetCheckResult:
        """The columns and types are those of the table's schema."""
        try:
            check_schema(table.rows, SCHEMAS[asset], name=asset)
        except SchemaError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        return dg.AssetCheckResult(passed=True)

    return check


def distinct_check(asset: str) -> dg.AssetChecksDefinition:
    """Return a check that no text of a table occurs twice."""

    @dg.asset_check(asset=asset, name="no_duplicates", partitions_def=COHORTS_BY_LEVELS)
    def check(table: Table) -> dg.AssetCheckResult:
        """No text occurs twice."""
        texts = table.collect()["text"]
        repeated = texts.len() - texts.n_unique()
        return dg.AssetCheckResult(passed=repeated == 0, metadata={"repeated": repeated})

    return check


def weights_moved_check(asset: str) -> dg.AssetChecksDefinition:
    """Return a check that training changed an adapter."""

    @dg.asset_check(asset=asset, name="weights_moved", partitions_def=COHORTS_BY_LEVELS)
    def check(adapter: Adapter) -> dg.AssetCheckResult:
        """Training changed the adapter: LoRA's second factors start at zero, so none of them may still be there."""
        started_at_zero = [weights for name, weights in adapter.weights.items() if "lora_B" in name]
        moved = sum(bool(np.any(weights != 0)) for weights in started_at_zero)
        finite = all(bool(np.isfinite(weights).all()) for weights in adapter.weights.values())
        passed = finite and moved == len(started_at_zero) > 0
        return dg.AssetCheckResult(passed=passed, metadata={"tensors_moved": moved, "finite": finite})

    return check


@dg.asset_check(asset="filtered_instructions", partitions_def=COHORTS_BY_LEVELS)
def exact_target_size(table: Table, profile: dg.ResourceParam[Profile]) -> dg.AssetCheckResult:
    """The filtered set has exactly the size that the profile asks for."""
    rows, target = table.collect().height, profile.selection.target_size
    return dg.AssetCheckResult(passed=rows == target, metadata={"rows": rows, "target": target})


@dg.asset_check(
    asset="filtered_instructions",
    additional_ins={
        "histogram": dg.AssetIn("dp_histogram"),
        "bins": dg.AssetIn("synthetic_bins"),
        "embeddings": dg.AssetIn("synthetic_embeddings"),
    },
    partitions_def=COHORTS_BY_LEVELS,
)
def quotas_met(
    table: Table, histogram: Table, bins: Table, embeddings: Table, profile: dg.ResourceParam[Profile]
) -> dg.AssetCheckResult:
    """Every bin holds as many rows as the rule asks for; a shortage is stated and shown as a warning."""
    centroids = centroids_of(bins)
    required = apply_rule(
        profile.selection.rule,
        histogram_of(histogram),
        bins=assigned(embeddings.rows, centroids)["bin_id"].to_numpy(),
        vectors=(),  # vectors decide which rows of a bin are taken, not how many
        centroids=centroids,
        target_size=profile.selection.target_size,
    ).quotas
    held = np.bincount(table.collect()["bin_id"].to_numpy(), minlength=len(required))
    shortage = int((required - held).clip(0).sum())
    return dg.AssetCheckResult(
        passed=shortage == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"shortage": shortage, "short_bins": int((held < required).sum())},
    )


@dg.asset_check(asset="privacy_statement", partitions_def=COHORTS_BY_LEVELS)
def epsilon_within_target(statement: Document) -> dg.AssetCheckResult:
    """The certified epsilon of the release is at most its level's target, and every figure follows from the events."""
    (level,), lineage = statement.data["release"]["levels"], statement.data["guarantee"]["lineage_epsilon"]
    if level == NO_DP:
        return dg.AssetCheckResult(passed=True, description="no guarantee is claimed at this level")
    try:
        verify(statement.data)
    except StatementError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    target = target_of(level)
    return dg.AssetCheckResult(passed=lineage <= target, metadata={"epsilon": lineage, "target": target})


ALL_CHECKS = (
    *(schema_check(asset) for asset in RELEASED_TABLES),
    *(distinct_check(asset) for asset in DISTINCT_TABLES),
    *(weights_moved_check(asset) for asset in ADAPTERS),
    exact_target_size,
    quotas_met,
    epsilon_within_target,
)
