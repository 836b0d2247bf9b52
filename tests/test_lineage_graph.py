"""Lineage through the real stores: an artifact has the ids of what was read to make it, and states what they cost.

The graph has the two mechanisms, over no rows at all, and takes their evidence as it comes. Everything around them
(charges, gate, stores, metadata) is what the pipeline uses.
"""

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable, Table, content_digest, union_of_ids
from dp_assets.pipeline.asset import table_schema
from dp_assets.pipeline.asset_metadata import AssetValue, MadeUnder, materialized, no_figures
from dp_assets.pipeline.release_protocol import ReleaseConfig, ReleaseIdentity, obtain
from dp_assets.privacy import accounting
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.labels import LABEL_METADATA, NO_DP, TAG, Label, Zone
from dp_assets.privacy.metadata import COHORT_EPSILON, LEDGER_IDS, LINEAGE_EPSILON
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.build import build_resources
from resources.ledger.ledger_resource import Charge, Ledger
from resources.storage.artifact_files import read_artifact, stored_charge_ids
from resources.storage.stores import COLUMNS_METADATA, LineageLost, UnprotectedInput, artifact_folder
from tests.tiny_pipeline import register, tiny_profile
from tests.toy_graph import SILENT
from tests.toy_mechanism import NothingElse, ToyMechanism

COHORTS = {
    PrivacyUnit.USER: ({"kind": "user_bucket", "num_buckets": 2}, ("bucket-0", "bucket-1")),
    PrivacyUnit.INSTRUCTION: ({"kind": "quarter", "first": "2026-Q1", "last": "2026-Q2"}, ("2026-Q1", "2026-Q2")),
}
LEVELS = ("eps-8", "eps-1", NO_DP)
NAMES = [cohort for _, names in COHORTS.values() for cohort in names]
PARTITIONS = dg.MultiPartitionsDefinition(
    {"cohort": dg.StaticPartitionsDefinition(NAMES), "level": dg.StaticPartitionsDefinition(list(LEVELS))}
)
RESOURCES = {"profile", "ledger"}
COLUMNS = {
    Label.PRIVATE: pl.Schema({"cohort": pl.String, "split": pl.String}),
    Label.MECHANISM: pl.Schema({"noise": pl.Float64}),
    Label.RELEASED: pl.Schema({"number": pl.Int64}),
}


def asset(label: Label, *, partitioned: bool = True, **arguments: Any) -> Callable[..., dg.AssetsDefinition]:
    """As `pipeline_asset`, but over the cohorts of these tests."""
    return dg.asset(
        tags={TAG: str(label)},
        op_tags={TAG: str(label)},
        metadata={LABEL_METADATA: str(label), COLUMNS_METADATA: table_schema(COLUMNS[label])},
        partitions_def=PARTITIONS if partitioned else None,
        code_version="1",
        **arguments,
    )


@asset(Label.PRIVATE, partitioned=False)
def rows(ledger: Ledger, profile: dg.ResourceParam[Profile]) -> PrivateTable:
    """The private rows: none."""
    (corpus_id,) = ledger.state().registrations
    empty = pl.LazyFrame(schema={"cohort": pl.String, "split": pl.String})
    preparation = profile.corpus.unit.preparation
    ledger.bind_rows(corpus_id, profile.corpus.snapshot, rows="none", texts="none", preparation="none")
    return PrivateTable(empty, corpus_id=corpus_id, snapshot=profile.corpus.snapshot, preparation=preparation)


def release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, table: PrivateTable, upstream: Sequence[Table]
) -> dg.MaterializeResult[Table]:
    """A mechanism that opens the rows under its charge and returns a table; its evidence is taken as it comes."""
    ledger, profile = context.resources.ledger, context.resources.profile

    def run(charge: Charge) -> tuple[Table, Evidence]:
        table.open(charge).collect()
        value = Table(pl.LazyFrame({"noise": [0.5]}), union_of_ids(*upstream))
        return value, Evidence(public={}, restricted={}, content=content_digest(value))

    plan = profile.plan(Partition.of(context).level)
    mechanism = ToyMechanism(context.asset_key.to_user_string(), plan, run)
    identity = ReleaseIdentity.of(mechanism, context, ledger, profile, table, release=config.release, inputs={})
    releases = context.resources.releases
    value = obtain(mechanism, identity, ledger=ledger, releases=releases, rest_of_run=NothingElse())
    return shown(context, value)


def shown(context: dg.AssetExecutionContext, value: Table) -> dg.MaterializeResult[Table]:
    """A value with its privacy metadata, but with no charge that its own code did not pass on."""
    under = MadeUnder(context.resources.ledger, context.resources.profile, None)
    return materialized(context, AssetValue(value), inputs=[], under=under, of_public_rows=no_figures)


def below(context: dg.AssetExecutionContext, *inputs: Table | Mapping[str, Table]) -> dg.MaterializeResult[Table]:
    """Post-processing of everything read, one partition or several."""
    read = [table for one in inputs for table in ([one] if isinstance(one, Table) else one.values())]
    value = Table(pl.LazyFrame({"number": [len(read)]}), union_of_ids(*read))
    return shown(context, value)


@asset(Label.MECHANISM, required_resource_keys={*RESOURCES, "releases"})
def dp_generator(
    context: dg.AssetExecutionContext, config: ReleaseConfig, rows: PrivateTable
) -> dg.MaterializeResult[Table]:
    """The first mechanism."""
    return release(context, config, rows, [])


@asset(Label.RELEASED, required_resource_keys=RESOURCES)
def pool(context: dg.AssetExecutionContext, dp_generator: Table) -> dg.MaterializeResult[Table]:
    """The top of a diamond."""
    return below(context, dp_generator)


@asset(Label.MECHANISM, required_resource_keys={*RESOURCES, "releases"})
def dp_histogram(
    context: dg.AssetExecutionContext, config: ReleaseConfig, rows: PrivateTable, pool: Table
) -> dg.MaterializeResult[Table]:
    """The second mechanism, which also depends on the first one's release."""
    return release(context, config, rows, [pool])


@asset(Label.RELEASED, required_resource_keys=RESOURCES)
def filtered(context: dg.AssetExecutionContext, pool: Table, dp_histogram: Table) -> dg.MaterializeResult[Table]:
    """The bottom of a diamond."""
    return below(context, pool, dp_histogram)


@asset(Label.RELEASED, required_resource_keys=RESOURCES)
def joined(context: dg.AssetExecutionContext, filtered: Table, dp_generator: Table) -> dg.MaterializeResult[Table]:
    """Below a diamond, and directly below a mechanism that may have been made again since."""
    return below(context, filtered, dp_generator)


CHAIN = (rows, dp_generator, pool, dp_histogram, filtered, joined)


def reading(partitions: Sequence[str], *names: str, partitioned: bool = False, label: Label = Label.RELEASED) -> Any:
    """An asset `report` that reads these partitions of the named assets."""
    mapping = dg.SpecificPartitionsPartitionMapping(list(partitions))

    @asset(
        label,
        partitioned=partitioned,
        ins={name: dg.AssetIn(partition_mapping=mapping) for name in names},
        required_resource_keys=RESOURCES,
    )
    def report(context: dg.AssetExecutionContext, **inputs: Any) -> dg.MaterializeResult[Table]:
        return below(context, *inputs.values())

    return report


class Workshop:
    """A data folder, a ledger with two cohorts and room for several releases, and runs over them."""

    def __init__(self, home: Path, unit: PrivacyUnit) -> None:
        settings, self.cohorts = COHORTS[unit]
        overrides = {"unit": str(unit), "cohorts": settings, "budget_epsilon": 60.0, "planned_levels": ("eps-8",)}
        rows_bound = {"max_rows_per_unit": 1} if unit is PrivacyUnit.INSTRUCTION else {}
        self.profile = tiny_profile(home / "corpus.parquet", Path("no model"), **overrides, **rows_bound)
        self.home, self.resources = home, build_resources(self.profile, home)
        self.ledger: Ledger = self.resources["ledger"]
        self.corpus_id = register(self.ledger, self.profile, is_public=True).corpus_id

    def place(self, cohort: int = 0, level: str = "eps-8") -> str:
        return f"{self.cohorts[cohort]}|{level}"

    def run(
        self,
        partition: str | None,
        *names: str,
        releases: Mapping[str, int] | None = None,
        assets: Sequence[dg.AssetsDefinition] = CHAIN,
    ) -> dg.ExecuteInProcessResult:
        """Materialize the named assets, or all, of one partition; `releases` numbers those of mechanisms."""
        ops = {name: {"config": {"release": number}} for name, number in (releases or {}).items()}
        return dg.materialize(
            list(assets),
            partition_key=partition,
            selection=list(names) or None,
            resources={name: self.resources[name] for name in ("profile", "ledger", "releases", "io_manager")},
            run_config={**SILENT, "ops": ops},
        )

    def stored(self, name: str, partition: str | None) -> tuple[str, ...]:
        return stored_charge_ids(artifact_folder(self.home, [name], Label.RELEASED, partition))

    def charge_of(self, mechanism: str, partition: str, number: int = 0) -> str:
        """The id of the n-th charge of a mechanism at a partition."""
        cohort, level = partition.split("|")
        charges = self.ledger.state().charges.values()
        wanted = (mechanism, cohort, level)
        found = [c.charge_id for c in charges if (c.mechanism, c.cohort, c.level) == wanted]
        return found[number]

    def epsilon(self, *charge_ids: str) -> float:
        """Of charges in one cohort, composed here."""
        plans = {level: self.profile.plan(level) for level in LEVELS}
        charges = [self.ledger.state().charges[charge_id] for charge_id in charge_ids]
        events = [plans[charge.level].events[charge.mechanism] for charge in charges]
        return accounting.epsilon(accounting.compose(events), self.profile.corpus.delta)


def figures(run: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    (event,) = run.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


@pytest.fixture(params=list(PrivacyUnit))
def workshop(tmp_path: Path, request: pytest.FixtureRequest) -> Workshop:
    return Workshop(tmp_path, request.param)


def test_a_diamond_counts_each_charge_once(workshop: Workshop) -> None:
    place = workshop.place()
    run = workshop.run(place)
    generator, histogram = workshop.charge_of(GENERATOR, place), workshop.charge_of(HISTOGRAM, place)
    for name, ids in {
        "pool": [generator],
        "filtered": [generator, histogram],
        "joined": [generator, histogram],
    }.items():
        assert figures(run, name)[LEDGER_IDS] == sorted(ids) == list(workshop.stored(name, place))
        assert figures(run, name)[LINEAGE_EPSILON] == workshop.epsilon(*ids)
    assert figures(run, "joined")[LINEAGE_EPSILON] == workshop.profile.plan("eps-8").epsilon


def test_the_version_that_was_read_counts_and_not_the_latest(workshop: Workshop) -> None:
    place = workshop.place()
    workshop.run(place)
    workshop.run(place, GENERATOR, releases={GENERATOR: 2})
    first, second = (workshop.charge_of(GENERATOR, place, number) for number in (0, 1))
    histogram = workshop.charge_of(HISTOGRAM, place)
    assert workshop.stored(GENERATOR, place) == (second,)
    assert workshop.stored("pool", place) == (first,)
    assert figures(workshop.run(place, "filtered"), "filtered")[LEDGER_IDS] == sorted((first, histogram))
    mixed = figures(workshop.run(place, "joined"), "joined")
    assert mixed[LEDGER_IDS] == sorted((first, second, histogram)) == list(workshop.stored("joined", place))
    assert mixed[LINEAGE_EPSILON] == workshop.epsilon(first, second, histogram) > workshop.epsilon(first, histogram)
    assert figures(workshop.run(place, "pool"), "pool")[LEDGER_IDS] == [second]
    assert workshop.stored("filtered", place) == tuple(sorted((first, histogram)))


def test_an_older_release_is_returned_at_no_cost_and_with_its_own_id(workshop: Workshop) -> None:
    place = workshop.place()
    for number in (1, 2):
        workshop.run(place, "rows", GENERATOR, releases={GENERATOR: number})
    before = workshop.ledger.state().anchor
    again = workshop.run(place, GENERATOR, releases={GENERATOR: 1})
    assert figures(again, GENERATOR)[LEDGER_IDS] == [workshop.charge_of(GENERATOR, place, 0)]
    assert workshop.ledger.state().anchor == before


def test_two_equal_charges_cost_twice(workshop: Workshop) -> None:
    place = workshop.place()
    workshop.run(place)
    workshop.run(place, HISTOGRAM, "filtered", releases={HISTOGRAM: 2})
    first, second = (workshop.charge_of(HISTOGRAM, place, number) for number in (0, 1))
    state = workshop.ledger.state()
    assert state.charges[first].event == state.charges[second].event
    assert state.lineage_epsilon([first, second]) == workshop.epsilon(first, second) > state.lineage_epsilon([first])
    assert state.lineage_epsilon([first, first]) == state.lineage_epsilon([first])


@pytest.mark.slow
def test_a_fan_in_over_levels_of_a_cohort_adds_up_and_over_cohorts_takes_the_worst(workshop: Workshop) -> None:
    places = [workshop.place(0, "eps-8"), workshop.place(0, "eps-1"), workshop.place(1, "eps-8")]
    for place in places:
        workshop.run(place)
    report = reading(places, "filtered", "dp_generator")
    stated = figures(workshop.run(None, "report", assets=[*CHAIN, report]), "report")
    by_place = {place: [workshop.charge_of(name, place) for name in (GENERATOR, HISTOGRAM)] for place in places}
    assert stated[LEDGER_IDS] == sorted(charge_id for ids in by_place.values() for charge_id in ids)
    assert workshop.stored("report", None) == tuple(stated[LEDGER_IDS])
    first_cohort = [*by_place[places[0]], *by_place[places[1]]]
    assert stated[LINEAGE_EPSILON] == workshop.epsilon(*first_cohort) > workshop.epsilon(*by_place[places[2]])
    state = workshop.ledger.state()
    spent = [state.cohort_epsilon(workshop.corpus_id, cohort) for cohort in workshop.cohorts]
    assert max(spent) == spent[0] > spent[1]
    assert stated[COHORT_EPSILON] == state.registrations[workshop.corpus_id].budget_epsilon  # eps-1 was not planned


def test_a_partitioned_asset_may_read_another_partition_and_states_it(workshop: Workshop) -> None:
    here, there = workshop.place(0), workshop.place(1)
    workshop.run(there)
    report = reading([there], "filtered", partitioned=True)
    stated = figures(workshop.run(here, "report", assets=[*CHAIN, report]), "report")
    assert stated[LEDGER_IDS] == list(workshop.stored("filtered", there))
    assert stated[LINEAGE_EPSILON] == workshop.profile.plan("eps-8").epsilon


def test_the_ids_survive_copying_the_folder_elsewhere(workshop: Workshop, tmp_path: Path) -> None:
    place = workshop.place()
    run = workshop.run(place)
    copied = tmp_path / "elsewhere" / "some name"
    shutil.copytree(artifact_folder(workshop.home, ["joined"], Label.RELEASED, place), copied)
    shutil.rmtree(workshop.home / Zone.RELEASED / "artifacts")
    assert list(stored_charge_ids(copied)) == figures(run, "joined")[LEDGER_IDS]
    assert read_artifact(copied).charge_ids == stored_charge_ids(copied)  # type: ignore[union-attr]


@pytest.mark.parametrize("partitioned", [False, True])
def test_nothing_without_noise_is_read_for_the_released_zone(workshop: Workshop, partitioned: bool) -> None:
    bare, protected = workshop.place(0, NO_DP), workshop.place(0)
    for place in (bare, protected):
        workshop.run(place)
    assert (workshop.home / "private/artifacts/joined").joinpath(*bare.split("|")).is_dir()
    report = reading([bare, protected], "filtered", partitioned=partitioned)
    with pytest.raises(UnprotectedInput, match="report"):
        workshop.run(protected if partitioned else None, "report", assets=[*CHAIN, report])
    assert not list((workshop.home / Zone.RELEASED).rglob("report"))


def test_an_unpartitioned_reader_is_refused_even_in_a_run_without_noise(workshop: Workshop) -> None:
    bare = workshop.place(0, NO_DP)
    report = reading([bare], "filtered")
    with pytest.raises(UnprotectedInput):
        workshop.run(bare, assets=[*CHAIN, report])


def test_at_the_level_without_noise_everything_may_be_read_and_nothing_is_bounded(workshop: Workshop) -> None:
    bare, protected = workshop.place(0, NO_DP), workshop.place(0)
    for place in (bare, protected):
        workshop.run(place)
    report = reading([bare, protected], "filtered", partitioned=True)
    stated = figures(workshop.run(bare, "report", assets=[*CHAIN, report]), "report")
    assert (stated[LINEAGE_EPSILON], stated[COHORT_EPSILON]) == (float("inf"), float("inf"))
    assert (workshop.home / "private/artifacts/report").joinpath(*bare.split("|")).is_dir()


def test_an_artifact_that_forgets_what_it_was_made_from_is_not_stored(workshop: Workshop) -> None:
    place = workshop.place()
    workshop.run(place)

    @asset(Label.RELEASED)
    def forgetful(pool: Table, filtered: Table) -> Table:
        return Table(filtered.rows, pool.charge_ids)

    with pytest.raises(LineageLost, match="forgetful"):
        workshop.run(place, "forgetful", assets=[*CHAIN, forgetful])
    assert not list((workshop.home / Zone.RELEASED).rglob("forgetful"))


@pytest.mark.parametrize("passed_on", [0, 1])
def test_a_fan_in_that_passes_on_the_ids_of_one_partition_only_is_not_stored(
    workshop: Workshop, passed_on: int
) -> None:
    places = [workshop.place(0), workshop.place(1)]
    for place in places:
        workshop.run(place)
    mapping = dg.SpecificPartitionsPartitionMapping(places)

    @asset(Label.RELEASED, partitioned=False, ins={"filtered": dg.AssetIn(partition_mapping=mapping)})
    def forgetful(**inputs: Any) -> Table:
        one = inputs["filtered"][places[passed_on]]
        return Table(one.rows, one.charge_ids)

    with pytest.raises(LineageLost, match="forgetful"):
        workshop.run(None, "forgetful", assets=[*CHAIN, forgetful])
    assert not list((workshop.home / Zone.RELEASED).rglob("forgetful"))


def random_graph(choose: random.Random, places: Sequence[str], size: int) -> dict[str, dict[str, list[str]]]:
    """What each node reads: partitions of mechanisms, and earlier nodes (which have no partitions)."""
    graph: dict[str, dict[str, list[str]]] = {}
    for number in range(size):
        earlier = choose.sample(sorted(graph), choose.randint(0, min(3, number)))
        mechanisms = choose.sample([GENERATOR, HISTOGRAM], choose.randint(0 if earlier else 1, 2))
        reads = {name: choose.sample(places, choose.randint(1, len(places))) for name in mechanisms}
        graph[f"node_{number}"] = reads | {name: [] for name in earlier}
    return graph


def node(name: str, reads: Mapping[str, Sequence[str]]) -> dg.AssetsDefinition:
    mappings = {
        source: dg.AssetIn(partition_mapping=dg.SpecificPartitionsPartitionMapping(list(places)))
        if places
        else dg.AssetIn()
        for source, places in reads.items()
    }

    @asset(Label.RELEASED, partitioned=False, name=name, ins=mappings, required_resource_keys=RESOURCES)
    def made(context: dg.AssetExecutionContext, **inputs: Any) -> dg.MaterializeResult[Table]:
        return below(context, *inputs.values())

    return made


def expected_ids(workshop: Workshop, graph: Mapping[str, Mapping[str, Sequence[str]]], name: str) -> set[str]:
    """The charges behind a node, by walking every path up to the mechanisms. The histogram rests on the generator."""
    ids: set[str] = set()
    for source, places in graph[name].items():
        if not places:
            ids |= expected_ids(workshop, graph, source)
        for place in places:
            ids.add(workshop.charge_of(GENERATOR, place))
            ids |= {workshop.charge_of(HISTOGRAM, place)} if source == HISTOGRAM else set()
    return ids


def expected_epsilon(workshop: Workshop, ids: set[str]) -> float:
    charges = workshop.ledger.state().charges
    cohorts = {charges[charge_id].cohort for charge_id in ids}
    return max(
        workshop.epsilon(*(charge_id for charge_id in sorted(ids) if charges[charge_id].cohort == cohort))
        for cohort in cohorts
    )


@pytest.mark.slow
def test_in_random_graphs_every_artifact_states_what_every_path_above_it_spent(workshop: Workshop) -> None:
    places = [workshop.place(cohort, level) for cohort in (0, 1) for level in ("eps-8", "eps-1")]
    for place in places:
        workshop.run(place, "rows", GENERATOR, "pool", HISTOGRAM)
    choose = random.Random(20261124)
    for _ in range(3):
        graph = random_graph(choose, places, 6)
        nodes = [node(name, reads) for name, reads in graph.items()]
        run = workshop.run(None, *graph, assets=[*CHAIN, *nodes])
        for name in graph:
            ids = expected_ids(workshop, graph, name)
            assert set(workshop.stored(name, None)) == ids == set(figures(run, name)[LEDGER_IDS])
            assert figures(run, name)[LINEAGE_EPSILON] == expected_epsilon(workshop, ids)
