"""A workbench for one asset: a registered tiny corpus, and values made by hand in the places of those above it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from dp_assets.artifacts import EMBEDDER, SHORTAGE, Adapter, Document, PrivateTable, Table
from dp_assets.pipeline.release_protocol import EVIDENCE
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from resources.models.loaders import Embedder
from resources.storage.artifact_files import read_artifact
from resources.storage.stores import artifact_folder
from tests.disk_pipeline import DiskPipeline
from tests.statements.statements import ran_as_planned
from tests.tiny_pipeline import PARTITION

TOPICS = ("how do i bake bread", "what is gravity", "why is the sky blue", "tell me a story")
OF_A_TOPIC = 12
TEXTS = [f"{topic} number {number}?" for topic in TOPICS for number in range(OF_A_TOPIC)]
SYNTHETIC_IDS = [f"pool-{number:07d}" for number in range(len(TEXTS))]


class Workbench(DiskPipeline):
    """One asset is materialized from what `put` stored; the mechanisms behind that were charged in the ledger."""

    def __init__(self, folder: Path, model: Path, **settings: Any) -> None:
        super().__init__(folder, model, **settings)
        self.shown: dict[str, Any] = {}
        self._ids: dict[str, str] = {}

    def id_of(self, mechanism: str) -> str:
        """The id of the charge of a mechanism that is said to have run, charged when it is first asked for."""
        if mechanism not in self._ids:
            plan = self.profile.plan("eps-8")
            names = {"corpus_id": self.registration.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": mechanism}
            self._ids[mechanism] = self.ledger.charge(plan=plan, mechanism=mechanism, **names).charge_id
        return self._ids[mechanism]

    def evidence(self, mechanism: str) -> dict[str, Any]:
        """What a mechanism that ran as planned leaves."""
        return ran_as_planned(self.profile.plan("eps-8"), mechanism)

    @property
    def both(self) -> tuple[str, ...]:
        return tuple(sorted(map(self.id_of, (GENERATOR, HISTOGRAM))))

    def put_pool(self) -> None:
        """The pool, a number of texts of each topic, with its vectors and a bin for each topic."""
        ids, embedder = (self.id_of(GENERATOR),), Embedder(model="hashing")
        vectors = embedder.encode(TEXTS)
        means = vectors.reshape(len(TOPICS), OF_A_TOPIC, -1).mean(axis=1)
        record = {EMBEDDER: embedder.public_name}
        columns = {"text": TEXTS, "num_tokens": [8] * len(TEXTS)}
        self.put("synthetic_pool", Table(pl.LazyFrame({"synthetic_id": SYNTHETIC_IDS, **columns}), ids))
        embedded = pl.LazyFrame({"synthetic_id": SYNTHETIC_IDS, "vector": pl.Series(vectors)})
        self.put("synthetic_embeddings", Table(embedded, ids, record))
        bins = pl.LazyFrame({"bin_id": range(len(TOPICS)), "centroid": pl.Series(means.astype(np.float32))})
        self.put("synthetic_bins", Table(bins, ids, record))

    def put_votes(self, votes: Sequence[int]) -> None:
        rows = pl.LazyFrame({"bin_id": range(len(votes)), "noisy_votes": votes})
        self.put("dp_histogram", Table(rows, self.both, {EVIDENCE: self.evidence(HISTOGRAM)}))

    def put_generator(self) -> None:
        generator = self.adapter([self.id_of(GENERATOR)])
        self.put("dp_generator", replace(generator, record={EVIDENCE: self.evidence(GENERATOR)}))

    def adapter(self, ids: Sequence[str]) -> Adapter:
        """One that moves the language model a little."""
        from dp_assets.generation.adapters import adapter_from_model
        from dp_assets.generation.generator import with_new_adapter

        language_model = self.resources["language_model"]
        model = with_new_adapter(language_model.load()[0], self.profile.generator)
        made = adapter_from_model(model, base_model=language_model.public_name, record={})
        values = np.random.default_rng(0)
        weights = {name: values.normal(0, 0.1, each.shape).astype(np.float32) for name, each in made.weights.items()}
        record = {"curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]}
        return replace(made, weights=weights, charge_ids=tuple(ids), record=record)

    def put_filtered(self, *, shortage: int = 0) -> None:
        """Every other text of the pool."""
        rows = pl.LazyFrame(
            {
                "synthetic_id": SYNTHETIC_IDS[::2],
                "text": TEXTS[::2],
                "bin_id": [number // OF_A_TOPIC for number in range(0, len(TEXTS), 2)],
                "origin": ["pool"] * len(TEXTS[::2]),
            }
        )
        self.put("filtered_instructions", Table(rows, self.both, {SHORTAGE: shortage}))

    def put_annotated(self) -> None:
        rows = pl.LazyFrame(
            {
                "synthetic_id": SYNTHETIC_IDS[::2],
                "instruction": TEXTS[::2],
                "response": [f"number {number} is a number" for number in range(len(TEXTS[::2]))],
                "annotator": ["somebody"] * len(TEXTS[::2]),
                "bin_id": [number // OF_A_TOPIC for number in range(0, len(TEXTS), 2)],
            }
        )
        self.put("annotated_instructions", Table(rows, self.both))

    def make(self, *assets: dg.AssetsDefinition, partition: str = PARTITION, **config: Any) -> None:
        """Materialize these assets, each under `config` if there is any."""
        names = [asset.key.to_user_string() for asset in assets]
        run_config = {"ops": {name: {"config": config} for name in names}} if config else None
        result = self.materialize(*assets, partition=partition, raise_on_error=True, run_config=run_config)
        for name in names:
            (event,) = result.asset_materializations_for_node(name)
            self.shown[name] = {key: value.value for key, value in event.metadata.items()}

    def table(self, asset: str) -> Table:
        return self._released(asset, Table)

    def made_adapter(self, asset: str) -> Adapter:
        return self._released(asset, Adapter)

    def private_rows(self, asset: str) -> pl.DataFrame:
        kept: list[pl.DataFrame] = []
        table = read_artifact(artifact_folder(self.home, [asset], Label.PRIVATE, PARTITION))
        assert isinstance(table, PrivateTable)
        table.store(lambda rows: kept.append(rows.collect()))
        return kept[0]

    def document(self, asset: str) -> Document:
        return self._released(asset, Document)

    def _released(self, asset: str, kind: type[Any]) -> Any:
        value = read_artifact(artifact_folder(self.home, [asset], Label.RELEASED, PARTITION))
        assert isinstance(value, kind)
        return value
