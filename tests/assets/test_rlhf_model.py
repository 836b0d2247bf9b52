"""SFT, reward model and a policy by each method, as assets: what they store and show has one form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Table
from dp_assets.assets.preference_pairs import preference_pairs
from dp_assets.assets.reward_model import reward_model
from dp_assets.assets.rlhf_model import rlhf_model
from dp_assets.assets.sft_model import sft_model
from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import Label, Zone
from dp_assets.settings.profile import Profile
from resources.storage.artifact_files import read_artifact, write_artifact
from resources.storage.stores import artifact_folder
from resources.storage.zones import prepare_folder
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources

pytestmark = pytest.mark.slow

METHODS = ("rloo", "grpo", "dpo")
TEXTS = [f"can you explain number {row}?" for row in range(12)]
FILTERED = pl.DataFrame({"synthetic_id": [f"pool-{row:02d}" for row in range(12)], "bin_id": [0, 1] * 6})


class Project:
    """A data folder with a filtered and annotated set, on which everything below it was trained by each method."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home, self.model = home, model
        register(tiny_resources(self.profile(), home)["ledger"], self.profile())
        self._store("filtered_instructions", FILTERED.with_columns(text=pl.Series(TEXTS), origin=pl.lit("pool")))
        answers = [f"number {row} is a number" for row in range(12)]
        columns = {"instruction": pl.Series(TEXTS), "response": pl.Series(answers), "annotator": pl.lit("a")}
        self._store("annotated_instructions", FILTERED.with_columns(**columns))
        self.shown: dict[str, Mapping[str, Any]] = {}
        self.stored: dict[str, Adapter] = {}
        self.materialize(sft_model, reward_model, preference_pairs)
        for method in METHODS:
            self.materialize(rlhf_model, method=method)
            self.shown[method], self.stored[method] = self.shown["rlhf_model"], self.stored["rlhf_model"]

    def profile(self, **rlhf: Any) -> Profile:
        settings = tiny_profile(self.home / "corpus.parquet", self.model).model_dump(mode="json")
        return Profile.model_validate(settings | {"rlhf": settings["rlhf"] | {"steps": 2, "evaluations": 3} | rlhf})

    def materialize(self, *assets: dg.AssetsDefinition, **rlhf: Any) -> None:
        result = dg.materialize(
            ALL_ASSETS,
            selection=list(assets),
            partition_key=PARTITION,
            resources=tiny_resources(self.profile(**rlhf), self.home),
        )
        for event in result.get_asset_materialization_events():
            name = event.asset_key.to_user_string()
            self.shown[name] = {key: value.value for key, value in event.materialization.metadata.items()}
            artifact = read_artifact(self._folder(name))
            if isinstance(artifact, Adapter):
                self.stored[name] = artifact

    def _folder(self, asset: str) -> Path:
        return artifact_folder(self.home, [asset], Label.RELEASED, PARTITION)

    def _store(self, asset: str, rows: pl.DataFrame) -> None:
        write_artifact(prepare_folder(self._folder(asset), Zone.RELEASED), Table(rows.lazy()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Project:
    return Project(tmp_path_factory.mktemp("alignment"), tiny_model_folder)


def test_every_training_stores_a_loss_for_each_of_its_steps(project: Project) -> None:
    for name in ("sft_model", "reward_model", *METHODS):
        curve = project.stored[name].record["curve"]
        assert [entry["step"] for entry in curve] == list(range(1, len(curve) + 1)), name
        assert len(curve) > 1
        assert all(isinstance(entry["loss"], float) for entry in curve), name
        assert isinstance(project.stored[name].record["figures"], dict)


def test_policies_by_all_methods_are_shown_under_the_same_names(project: Project) -> None:
    shown = [{name: type(value) for name, value in project.shown[method].items()} for method in METHODS]
    assert shown[0] == shown[1] == shown[2]
    figures = ("reward", "kl", "answer_tokens", "distinct_1", "distinct_2")
    assert {f"policy/{figure}_{end}" for figure in figures for end in ("before", "after")} <= set(shown[0])
    assert {"policy/evaluations", "training/loss", "training/rows_trained_on", "curve"} <= set(shown[0])
    assert [project.shown[method]["policy/method"] for method in METHODS] == list(METHODS)


def test_policies_by_all_methods_store_the_same_form_and_start_from_the_same_point(project: Project) -> None:
    records = [project.stored[method].record for method in METHODS]
    assert {frozenset(record) for record in records} == {frozenset({"curve", "figures", "method", "evaluations"})}
    assert len({frozenset(point) for record in records for point in record["evaluations"]}) == 1
    assert records[0]["evaluations"][0] == records[1]["evaluations"][0] == records[2]["evaluations"][0]
    assert [[point["step"] for point in record["evaluations"]] for record in records] == [[0, 1, 2]] * 3


def test_what_is_shown_before_and_after_is_what_is_stored(project: Project) -> None:
    for method in METHODS:
        shown, points = project.shown[method], project.stored[method].record["evaluations"]
        for figure in ("reward", "kl", "answer_tokens"):
            assert shown[f"policy/{figure}_before"] == points[0][figure]
            assert shown[f"policy/{figure}_after"] == points[-1][figure]
        assert shown["policy/kl_before"] == 0.0


def test_each_method_gives_another_policy(project: Project) -> None:
    rloo, grpo, dpo = (project.stored[method].weights for method in METHODS)
    for one, other in ((rloo, grpo), (grpo, dpo), (dpo, rloo)):
        assert any((one[name] != other[name]).any() for name in one)
