"""A registered corpus with annotator and judge at an endpoint, or with people in their place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from dp_assets.artifacts import Adapter, Table
from dp_assets.corpus.schemas import SCHEMAS, check_schema
from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import Label, Zone
from dp_assets.settings.profile import Profile
from resources.storage.artifact_files import read_artifact, write_artifact
from resources.storage.stores import artifact_folder
from resources.storage.zones import prepare_folder
from tests.alignment.fake_endpoint import MODEL
from tests.alignment.test_judge import verdict_on
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources

NO_MODEL = Path("no model is loaded here")


KEY, VARIABLE = "sk-this-must-stay-inside", "TINY_SERVICE_KEY"


TEXTS = [f"can you explain number {row}?" for row in range(12)]


FILTERED = Table(
    pl.LazyFrame(
        {
            "synthetic_id": [f"pool-{row:02d}" for row in range(len(TEXTS))],
            "text": TEXTS,
            "bin_id": [0] * len(TEXTS),
            "origin": ["pool"] * len(TEXTS),
        }
    )
)


class Project:
    """A registered corpus and a filtered set, with annotator and judge at an endpoint."""

    def __init__(self, home: Path, model: Path, url: str, **preferences: Any) -> None:
        self.home = home
        self.endpoint = {
            "base_url": url,
            "model": MODEL,
            "api_key_variable": VARIABLE,
            "backoff_seconds": 0.01,
            "attempts": 9,
            "input_price": 1.0,
            "output_price": 10.0,
        }
        self.plain = tiny_profile(home / "corpus.parquet", model).model_dump(mode="json")
        self.preferences = preferences
        register(self.resources()["ledger"], self.profile())

    def profile(self, **endpoint: Any) -> Profile:
        settings = self.endpoint | endpoint
        judge = {"judge": {**settings, "max_new_tokens": 30}}
        return Profile.model_validate(
            self.plain
            | {"annotation": self.plain["annotation"] | {"endpoint": settings}}
            | {"preferences": self.plain["preferences"] | {"source": "judge"} | judge | self.preferences}
        )

    def resources(self, **endpoint: Any) -> dict[str, Any]:
        return tiny_resources(self.profile(**endpoint), self.home)

    def folder(self, asset: str, partition: str = PARTITION) -> Path:
        return artifact_folder(self.home, [asset], Label.RELEASED, partition)

    def materialize(
        self, *assets: dg.AssetsDefinition, partition: str = PARTITION, **endpoint: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets below a filtered set that is there already."""
        self.store("filtered_instructions", FILTERED, partition)
        return dg.materialize(
            ALL_ASSETS,
            selection=list(assets),
            partition_key=partition,
            resources=self.resources(**endpoint),
            raise_on_error=False,
        )

    def store(self, asset: str, value: Table | Adapter, partition: str) -> None:
        """What an earlier run left."""
        folder = self.folder(asset, partition)
        if not folder.exists():
            write_artifact(prepare_folder(folder, Zone.RELEASED), value)

    def store_inputs_of_preferences(self, partition: str) -> None:
        answered = FILTERED.rows.rename({"text": "instruction"}).with_columns(
            response=pl.lit("a"), annotator=pl.lit("b")
        )
        self.store("annotated_instructions", Table(answered), partition)
        self.store("sft_model", Adapter({"weight": np.zeros(1, np.float32)}, {"peft_type": "LORA"}, "tiny"), partition)

    def rows(self, asset: str) -> pl.DataFrame:
        table = read_artifact(self.folder(asset))
        assert isinstance(table, Table)
        check_schema(table.rows, SCHEMAS[asset], name=asset)
        return table.collect()

    @property
    def answers(self) -> list[Path]:
        return sorted((self.home / "released" / "answers").rglob("*.jsonl"))


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def messages(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.event_specific_data) + str(event.message) for event in result.all_events)


def people(tmp_path: Path, group: str) -> Project:
    """A project in which people do what this group of settings decides."""
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1")
    project.plain[group] |= {"source": "human", "path": str(tmp_path / "done.json")}
    project.preferences = project.plain["preferences"]
    project.store_inputs_of_preferences(PARTITION)
    return project


def reply(question: str) -> str:
    """Annotates instructions and judges comparisons, preferring the longer answer."""
    return verdict_on(question) if question.startswith("{") else f"answer to {question}"
