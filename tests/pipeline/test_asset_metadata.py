"""What a body returns gets its privacy metadata, its provenance and its lineage from the decorator, in every run."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.definitions import ALL_ASSETS
from dp_assets.pipeline import asset as decorator
from dp_assets.pipeline.asset import pipeline_asset, with_metadata
from dp_assets.pipeline.asset_metadata import AssetValue, with_lineage
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import TAG, Label
from dp_assets.privacy.plan import GENERATOR
from dp_assets.settings.profile import Profile
from resources.build import build_resources
from resources.storage.stores import BoundaryViolation, OpenRows
from tests.tiny_pipeline import PARTITION, register, tiny_profile, write_corpus
from tests.toy_graph import NOISE, POOL, SILENT

KINDS: dict[str, Callable[[Sequence[str]], Any]] = {
    "table": lambda ids: Table(pl.LazyFrame({"text": ["a"]}), tuple(ids)),
    "adapter": lambda ids: Adapter({}, {}, "base", tuple(ids)),
    "document": lambda ids: Document({}, "", tuple(ids)),
}
PROFILE = SimpleNamespace(own_digest=lambda asset: None)
RELEASED = [asset for asset in ALL_ASSETS if next(iter(asset.specs)).tags[TAG] != Label.PRIVATE]


class Place:
    """A data folder with a registered corpus and one charge, and runs of small assets over it."""

    def __init__(self, home: Path, *, is_public: bool = False, **groups: Mapping[str, Any]) -> None:
        plain = tiny_profile(write_corpus(home / "corpus.parquet"), Path("no model")).model_dump(mode="json")
        merged = {name: plain[name] | group for name, group in groups.items()}
        self.profile = Profile.model_validate(plain | merged)
        self.resources = build_resources(self.profile, home / "data")
        self.ledger = self.resources["ledger"]
        self.corpus_id = register(self.ledger, self.profile, is_public=is_public).corpus_id
        names = {"corpus_id": self.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": "toy"}
        plan = self.profile.plan("eps-8")
        self.charge_id = self.ledger.charge(plan=plan, mechanism=GENERATOR, **names).charge_id

    def run(self, *assets: dg.AssetsDefinition, in_memory: bool = True) -> dg.ExecuteInProcessResult:
        names = ("profile", "ledger") if in_memory else ("profile", "ledger", "io_manager")
        materialize = dg.materialize_to_memory if in_memory else dg.materialize
        resources = {name: self.resources[name] for name in names}
        partition = PARTITION if any(asset.partitions_def is not None for asset in assets) else None
        return materialize(assets, partition_key=partition, resources=resources, run_config=SILENT)

    def chain(self) -> list[dg.AssetsDefinition]:
        """A private table, a mechanism and a released table that say nothing of the ledger or of each other."""

        @pipeline_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
        def secrets() -> PrivateTable:
            """Private rows."""
            return PrivateTable(pl.LazyFrame({"text": ["secret"]}), corpus_id=self.corpus_id, snapshot="1")

        @pipeline_asset(label=Label.MECHANISM, group="toys", kinds={"polars"}, columns=NOISE)
        def noise(secrets: PrivateTable) -> AssetValue[Table]:
            """A release of one charge."""
            return AssetValue(Table(pl.LazyFrame({"noisy_votes": [1, 2]}), (self.charge_id,)))

        @pipeline_asset(label=Label.RELEASED, group="toys", kinds={"polars"}, columns=POOL)
        def pool(noise: Table) -> AssetValue[Table]:
            """Post-processing with a figure of its own."""
            return AssetValue(Table(noise.rows.with_columns(text=pl.lit("synthetic"))), {"dagster/row_count": 2})

        return [secrets, noise, pool]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def said(run: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = run.asset_materializations_for_node(asset)
    tags = {name: value for name, value in (event.tags or {}).items() if name == "dagster/data_version"}
    return {name: value.value for name, value in event.metadata.items()} | tags


def test_a_run_in_memory_says_what_a_run_over_the_stores_says(place: Place) -> None:
    in_memory, stored = place.run(*place.chain()), place.run(*place.chain(), in_memory=False)
    for asset in ("secrets", "noise", "pool"):
        shown = said(in_memory, asset)
        assert set(metadata.ARTIFACT_KEYS) | {metadata.PROFILE, metadata.CORPUS} <= set(shown)
        assert said(stored, asset) == shown


def test_a_body_that_names_no_charge_descends_from_those_of_its_inputs(place: Place) -> None:
    run = place.run(*place.chain())
    assert run.output_for_node("pool").charge_ids == (place.charge_id,)
    assert said(run, "pool")[metadata.LEDGER_IDS] == [place.charge_id]
    assert said(run, "pool")["dagster/row_count"] == 2


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)), ids="-".join)
def test_the_charges_of_every_input_reach_the_value_beside_its_own(kinds: tuple[str, str]) -> None:
    value, inputs = (KINDS[kind] for kind in kinds)
    several = {"all|eps-8": inputs(["c"]), "all|eps-1": inputs(["d"])}
    private = PrivateTable(pl.LazyFrame(), corpus_id="corpus", snapshot="1")
    returned = AssetValue(value(["own"]), {"figure": 1})
    seen = with_lineage(returned, [inputs(["b", "a"]), inputs(["b"]), several, private, "configuration"])
    assert seen.value.charge_ids == ("a", "b", "c", "d", "own")
    assert seen.figures == returned.figures


@pytest.mark.parametrize("asset", RELEASED, ids=lambda asset: asset.key.to_user_string())
def test_no_body_of_the_pipeline_can_lose_a_charge(asset: dg.AssetsDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asset is what the decorator makes of a body, and of such a body every input's charges reach the value."""
    function = asset.op.compute_fn.decorated_fn
    assert function.__code__ is with_metadata(forgetful(asset)).__code__
    seen: list[str] = []

    def note(context: Any, returned: AssetValue[Table], *, inputs: Iterable[Any], **_: Any) -> None:
        seen.extend(with_lineage(returned, inputs).value.charge_ids)

    monkeypatch.setattr(decorator, "materialized", note)
    inputs = [key.to_user_string() for key in asset.dependency_keys]
    charged = {name: KINDS["table"]([f"charge of {name}"]) for name in inputs}
    asked = [name for name in inspect.signature(function).parameters if name != "context"]
    arguments: dict[str, Any] = {**dict.fromkeys(asked), "profile": PROFILE, **charged}
    with_metadata(forgetful(asset))(SimpleNamespace(asset_key=asset.key), **arguments)
    assert seen == sorted(f"charge of {name}" for name in inputs)


def forgetful(asset: dg.AssetsDefinition) -> Callable[..., AssetValue[Table]]:
    """A body that asks for what the asset's own asks for, and passes nothing on."""

    def body(**_: Any) -> AssetValue[Table]:
        return AssetValue(Table(pl.LazyFrame({"text": ["a"]})))

    vars(body).update(__signature__=inspect.signature(asset.op.compute_fn.decorated_fn.__wrapped__))
    return body


def test_what_decides_an_asset_alone_is_hashed_before_its_body_reads_the_file(tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text("as handed back")
    place = Place(tmp_path, annotation={"source": "human", "path": str(answers)})
    before = place.profile.own_digest("annotated_instructions")

    @pipeline_asset(label=Label.RELEASED, group="toys", kinds={"polars"})
    def annotated_instructions() -> AssetValue[Table]:
        """Reads a file that changes meanwhile."""
        answers.write_text("corrected")
        return AssetValue(Table(pl.LazyFrame({"text": ["a"]}), (place.charge_id,)))

    run = place.run(annotated_instructions)
    assert said(run, "annotated_instructions")[metadata.OWN_SETTINGS] == before
    assert place.profile.own_digest("annotated_instructions") != before


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "stored"])
@pytest.mark.parametrize("label", list(Label))
def test_a_body_returns_what_its_label_allows(place: Place, label: Label, in_memory: bool) -> None:
    """A private asset no open rows, the others no private table: nothing of the value is shown before that is known."""
    private = PrivateTable(pl.LazyFrame({"text": ["secret"]}), corpus_id=place.corpus_id, snapshot="1")
    wrong: Any = (
        AssetValue(Table(pl.LazyFrame({"text": ["secret"]})), {"units": 1}) if label is Label.PRIVATE else private
    )

    @pipeline_asset(label=label, group="toys", kinds={"polars"}, partitioned=label is not Label.PRIVATE)
    def careless() -> AssetValue[Table]:
        """Returns the wrong kind."""
        return wrong  # type: ignore[no-any-return]

    with pytest.raises(OpenRows if label is Label.PRIVATE else BoundaryViolation, match="careless"):
        place.run(careless, in_memory=in_memory)


def test_a_mechanism_shows_declared_figures_only(place: Place) -> None:
    @pipeline_asset(label=Label.MECHANISM, group="toys", kinds={"polars"}, columns=NOISE)
    def noise() -> AssetValue[Table]:
        """A release with a figure of private rows."""
        return AssetValue(Table(pl.LazyFrame({"noisy_votes": [1]}), (place.charge_id,)), {"units": 12})

    with pytest.raises(metadata.FurtherFigure, match="units in metadata of noise"):
        place.run(noise)


@pytest.mark.parametrize("is_public", [True, False], ids=["public", "private"])
def test_figures_of_rows_are_made_of_a_public_source_only(tmp_path: Path, is_public: bool) -> None:
    place, asked = Place(tmp_path, is_public=is_public), []

    def figures(table: PrivateTable) -> dict[str, float]:
        asked.append(table)
        return {f"{metadata.RESTRICTED}mauve": 0.5}

    @pipeline_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False, of_public_rows=figures)
    def secrets() -> PrivateTable:
        """Rows of the registered source."""
        return PrivateTable(pl.LazyFrame({"text": ["secret"]}), corpus_id=place.corpus_id, snapshot="1")

    shown = said(place.run(secrets), "secrets")
    assert (len(asked), f"{metadata.RESTRICTED}mauve" in shown) == ((1, True) if is_public else (0, False))
    assert (metadata.PUBLIC_SOURCE in shown) == is_public
