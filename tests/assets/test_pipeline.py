"""The whole graph in memory: every asset's value, metadata and ledger rows, from one real run at a tiny size."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.corpus.schemas import SCHEMAS, check_schema
from dp_assets.definitions import ALL_ASSETS, ALL_CHECKS
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import LABEL_METADATA, Label
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.selection.strategies import Strategy
from dp_assets.settings.profile import Profile
from dp_assets.statements.verification import verify
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources, write_corpus

TABLES = (
    "synthetic_pool",
    "synthetic_embeddings",
    "synthetic_bins",
    "dp_histogram",
    "filtered_instructions",
    "annotated_instructions",
    "preference_pairs",
)
ADAPTERS = ("dp_generator", "sft_model", "reward_model", "rlhf_model")
DOCUMENTS = ("quality_report", "privacy_statement", "release_report")
PRIVATE = ("real_instructions", "real_embeddings", "restricted_report")


class Run:
    """One materialized graph and what it left behind."""

    def __init__(self, home: Path, model: Path) -> None:
        self.profile: Profile = tiny_profile(write_corpus(home / "corpus.parquet"), model)
        self.resources = tiny_resources(self.profile, home / "data")
        self.resources.pop("io_manager")
        self.registration = register(self.resources["ledger"], self.profile)
        self.instance = dg.DagsterInstance.ephemeral()
        self.result = self.again()

    def again(self) -> dg.ExecuteInProcessResult:
        """Materialize the whole graph in memory; every mechanism keeps its stored release."""
        return dg.materialize_to_memory(
            [*ALL_ASSETS, *ALL_CHECKS],
            partition_key=PARTITION,
            resources=self.resources,
            instance=self.instance,
        )

    def value(self, asset: str) -> Any:
        return self.result.output_for_node(asset)

    def metadata(self, asset: str) -> Mapping[str, Any]:
        event = self.result.asset_materializations_for_node(asset)[0]
        return {name: value.value for name, value in event.metadata.items()}

    @property
    def state(self) -> LedgerState:
        return self.resources["ledger"].state()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Run:
    return Run(tmp_path_factory.mktemp("run"), tiny_model_folder)


def test_every_asset_materializes(run: Run) -> None:
    assert run.result.success
    made = {event.asset_key.to_user_string() for event in run.result.get_asset_materialization_events()}
    assert made == {*TABLES, *ADAPTERS, *DOCUMENTS, *PRIVATE}


@pytest.mark.parametrize("asset", TABLES)
def test_released_tables_have_their_schema_and_rows(run: Run, asset: str) -> None:
    table: Table = run.value(asset)
    check_schema(table.rows, SCHEMAS[asset], name=asset)
    assert table.collect().height > 0


def test_the_filtered_set_has_exactly_the_target_size_and_no_duplicates(run: Run) -> None:
    filtered = run.value("filtered_instructions").collect()
    assert filtered.height == run.profile.selection.target_size == filtered["text"].n_unique()


def test_the_top_up_stays_within_its_budget_and_says_what_came_of_it(run: Run) -> None:
    figures = run.metadata("filtered_instructions")
    assert 0 <= figures["top_up_samples_drawn"] <= run.profile.selection.top_up_samples
    assert sum(figures[f"top_up_kept_{name}"] for name in Strategy) == figures["top_up_rows"]
    assert figures["shortage_before_top_up"] - figures["shortage_after_top_up"] == figures["top_up_rows"]
    assert sum(figures.get(f"rows_from_{name}", 0) for name in ("pool", "top_up", "steered")) == 24


def test_the_quality_report_tells_the_shortage_that_the_top_up_left(run: Run) -> None:
    left = run.metadata("filtered_instructions")["shortage_after_top_up"]
    assert run.value("quality_report").data["shortage"] == left


def test_every_bin_gets_a_noisy_vote_count(run: Run) -> None:
    histogram = run.value("dp_histogram").collect()
    assert histogram["bin_id"].to_list() == list(range(run.profile.votes.num_bins))


@pytest.mark.parametrize("asset", ADAPTERS)
def test_training_moved_every_adapter(run: Run, asset: str) -> None:
    adapter: Adapter = run.value(asset)
    second_factors = [weights for name, weights in adapter.weights.items() if "lora_B" in name]
    assert second_factors
    assert all(np.abs(weights).max() > 0 for weights in second_factors)


@pytest.mark.parametrize("asset", PRIVATE)
def test_private_assets_are_handles_that_show_nothing(run: Run, asset: str) -> None:
    value = run.value(asset)
    assert isinstance(value, PrivateTable)
    assert repr(value) == "PrivateTable(...)"


@pytest.mark.parametrize("asset", [*TABLES, *ADAPTERS, *DOCUMENTS, *PRIVATE])
def test_every_artifact_carries_the_privacy_metadata(run: Run, asset: str) -> None:
    figures = run.metadata(asset)
    assert set(metadata.ARTIFACT_KEYS) <= set(figures)
    assert figures[metadata.RELATION] == "add or remove one"
    assert figures[metadata.DELTA] == run.profile.corpus.delta


@pytest.mark.parametrize("asset", PRIVATE)
def test_the_metadata_of_private_assets_is_an_allow_list(run: Run, asset: str) -> None:
    figures = run.metadata(asset)
    assert set(figures) == {*metadata.ARTIFACT_KEYS, metadata.PROFILE, metadata.CORPUS, metadata.SNAPSHOT}
    assert figures[LABEL_METADATA] == Label.PRIVATE
    assert figures[metadata.LINEAGE_EPSILON] == metadata.NOT_A_RELEASE


@pytest.mark.parametrize("asset", [GENERATOR, HISTOGRAM])
def test_mechanisms_state_their_event_noise_and_own_epsilon(run: Run, asset: str) -> None:
    figures = run.metadata(asset)
    assert set(metadata.MECHANISM_KEYS) <= set(figures)
    assert 0 < figures[metadata.EPSILON] < 8


def charge_ids(run: Run, mechanism: str) -> list[str]:
    return [charge.charge_id for charge in run.state.charges.values() if charge.mechanism == mechanism]


def test_lineage_is_the_union_of_what_was_read(run: Run) -> None:
    generator, histogram = charge_ids(run, GENERATOR), charge_ids(run, HISTOGRAM)
    above_the_histogram = {"dp_generator", "synthetic_pool", "synthetic_embeddings", "synthetic_bins"}
    for asset in (*TABLES, *ADAPTERS, *DOCUMENTS):
        expected = generator if asset in above_the_histogram else sorted(generator + histogram)
        assert run.metadata(asset)[metadata.LEDGER_IDS] == expected, asset
        assert list(run.value(asset).charge_ids) == expected, asset


def test_both_epsilons_follow_from_the_plan(run: Run) -> None:
    plan = run.profile.plan("eps-8")
    for asset in ("filtered_instructions", "rlhf_model", "privacy_statement"):
        figures = run.metadata(asset)
        assert figures[metadata.LINEAGE_EPSILON] == figures[metadata.COHORT_EPSILON] == plan.epsilon <= 8


def test_the_ledger_holds_one_settled_charge_a_mechanism(run: Run) -> None:
    charges = list(run.state.charges.values())
    assert sorted(charge.mechanism for charge in charges) == [GENERATOR, HISTOGRAM]
    assert all(charge.opened and charge.settled and charge.booking_id for charge in charges)


def test_the_statement_verifies_and_an_edited_one_does_not(run: Run) -> None:
    statement: Document = run.value("privacy_statement")
    verify(statement.data)
    edited = {**statement.data, "guarantee": {**statement.data["guarantee"], "lineage_epsilon": 1.0}}
    with pytest.raises(ValueError, match="lineage_epsilon"):
        verify(edited)


def test_checks_pass(run: Run) -> None:
    evaluations = run.result.get_asset_check_evaluations()
    failed = [e for e in evaluations if not e.passed and e.severity is dg.AssetCheckSeverity.ERROR]
    assert len(evaluations) == len(ALL_CHECKS)
    assert failed == []


def test_the_restricted_report_holds_exact_figures_behind_the_boundary(run: Run) -> None:
    kept: list[pl.DataFrame] = []
    run.value("restricted_report").store(lambda rows: kept.append(rows.collect()))
    assert {"mauve", "recall", "held_out_token_loss", "verbatim_copy_share"} <= set(kept[0]["metric"])


def test_of_a_source_that_is_not_public_no_restricted_figure_is_shown(run: Run) -> None:
    assert not [key for key in run.metadata("restricted_report") if key.startswith("restricted/")]


def test_the_quality_report_compares_pool_filtered_set_and_baseline(run: Run) -> None:
    report: Document = run.value("quality_report")
    for subject in ("before", "after", "baseline", "baseline_filtered"):
        assert 0 <= report.data[subject]["estimated_total_variation"] <= 1
    assert report.html is not None
    assert report.html.count("<picture>") == 3


PICTURES = {
    "quality_report": ("agreement", "votes", "map"),
    "privacy_statement": ("trade_off", "epsilon_spent"),
    "sft_model": ("curve",),
    "reward_model": ("curve",),
}


@pytest.mark.parametrize(("asset", "key"), [(asset, key) for asset, keys in PICTURES.items() for key in keys])
def test_pictures_stand_inline_in_the_metadata_with_words_for_them(run: Run, asset: str, key: str) -> None:
    assert re.match(r"!\[[^\]]{40,}\]\(data:image/png;base64,", run.metadata(asset)[key])


def test_the_release_report_shows_every_picture_on_one_page(run: Run) -> None:
    report: Document = run.value("release_report")
    assert report.html is not None
    assert set(report.data["pictures"]) >= {"trade_off", "epsilon", "votes", "map", "Supervised fine-tuning"}
    assert report.html.count("<picture>") == len(report.data["pictures"])
    assert report.data["statement_digest"] == run.value("privacy_statement").data["digest"]


def test_the_map_draws_every_row_of_both_sets(run: Run) -> None:
    drawn = run.value("quality_report").data["map"]
    assert len(drawn["pool_xy"]) == run.value("synthetic_pool").collect().height
    assert len(drawn["filtered_xy"]) == run.value("filtered_instructions").collect().height


@pytest.mark.slow
def test_running_the_whole_graph_again_charges_nothing_and_returns_the_same_releases(run: Run) -> None:
    before = run.state.anchor
    again = run.again()
    assert run.state.anchor == before
    first, second = (result.output_for_node("dp_generator") for result in (run.result, again))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
