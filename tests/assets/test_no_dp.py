"""The level without noise: on public sources only, and nothing of it outside the private zone."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import LABEL_METADATA
from dp_assets.privacy.metadata import COHORT_EPSILON, LINEAGE_EPSILON
from tests.tiny_pipeline import register, tiny_profile, tiny_resources, write_corpus

SOME_ASSETS = (real_instructions, dp_generator, synthetic_pool)


def materialize(
    home: Path, model: Path, *, is_public: bool, assets: Sequence[dg.AssetsDefinition] = SOME_ASSETS
) -> dg.ExecuteInProcessResult:
    profile = tiny_profile(write_corpus(home / "corpus.parquet"), model)
    resources = tiny_resources(profile, home / "data")
    register(resources["ledger"], profile, is_public=is_public)
    return dg.materialize(
        assets,
        partition_key="all|no-dp",
        resources=resources,
        raise_on_error=False,
    )


def test_a_source_not_declared_public_is_refused_before_anything_is_read(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    result = materialize(tmp_path, tiny_model_folder, is_public=False)
    failed = {event.step_key for event in result.all_events if event.is_step_failure}
    assert failed == {"dp_generator"}
    assert not (tmp_path / "data/private/checkpoints").exists() or not any(
        (tmp_path / "data/private/checkpoints").iterdir()
    )


@pytest.mark.slow
def test_on_a_public_source_it_runs_claims_nothing_and_stays_in_the_private_zone(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    result = materialize(tmp_path, tiny_model_folder, is_public=True)
    assert result.success
    metadata = result.asset_materializations_for_node("synthetic_pool")[0].metadata
    assert (metadata[COHORT_EPSILON].value, metadata[LINEAGE_EPSILON].value) == (float("inf"), float("inf"))
    assert metadata[LABEL_METADATA].value == "private"
    assert [path.name for path in (tmp_path / "data/released").rglob("*") if path.is_file()] == ["ledger_anchor.json"]
    assert (tmp_path / "data/private/artifacts/synthetic_pool/all/no-dp").is_dir()


@pytest.mark.slow
def test_the_whole_graph_runs_and_shows_neither_a_text_nor_a_picture_outside_the_private_zone(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    result = materialize(tmp_path, tiny_model_folder, is_public=True, assets=ALL_ASSETS)
    assert result.success
    for event in result.get_asset_materialization_events():
        pictures = [
            name
            for name, value in event.materialization.metadata.items()
            if isinstance(value, dg.MarkdownMetadataValue)
        ]
        assert pictures == [], event.asset_key
    shown = result.asset_materializations_for_node("restricted_report")[0].metadata
    assert {"restricted/mauve_pool", "restricted/recall_filtered"} <= set(shown)
    assert (tmp_path / "data/private/artifacts/release_report/all/no-dp/document.html").is_file()
    assert not list((tmp_path / "data/released").rglob("*.html"))
    assert not (tmp_path / "data/released/samples").exists()
