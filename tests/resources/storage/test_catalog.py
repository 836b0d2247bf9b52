"""The catalog: what can be asked of it, what is not in it, and that readers and rebuilds do not meet."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.privacy import accounting
from dp_assets.privacy.labels import Label, zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import HISTOGRAM
from resources.ledger.ledger_resource import Ledger
from resources.storage.artifact_files import Artifact, write_artifact
from resources.storage.catalog import RELEASED_VARIABLE, STORAGE_VERSION, catalog_file, rebuild
from resources.storage.stores import artifact_folder
from resources.storage.zones import atomic_folder
from tests.privacy.plans import small_plan, small_terms
from tests.statements.statements import planned

SECRET = "only the private zone knows"
EMPTY = ("lineage", "costs", "statements", "metrics")
FIGURES = {"total_variation": 0.25, "coverage": 1.0}


def put(home: Path, asset: str, label: Label, partition: str | None, artifact: Artifact) -> None:
    """Store an artifact where the IO manager would."""
    level = partition.split("|")[1] if partition else None
    with atomic_folder(artifact_folder(home, [asset], label, partition), zone(label, level)) as temporary:
        write_artifact(temporary, artifact)


@pytest.fixture
def state(tmp_path: Path) -> LedgerState:
    """A ledger with one charge."""
    ledger, plan = Ledger(private_root=str(tmp_path / "ledger" / "private")), small_plan()
    corpus = ledger.register(locator="somewhere", terms=small_terms(), plans=[plan])
    ledger.charge(
        plan=plan, mechanism=HISTOGRAM, corpus_id=corpus.corpus_id, cohort="all", snapshot="1", reuse_key="key"
    )
    return ledger.state()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder whose name needs quoting, with every kind of artifact on both sides of the boundary."""
    home = tmp_path / "the owner's data"
    for level in ("eps-8", "eps-1"):
        pool = Table(pl.LazyFrame({"synthetic_id": ["pool-0"], "text": [f"made at {level}"]}), (f"charge-{level}",))
        put(home, "synthetic_pool", Label.RELEASED, f"all|{level}", pool)
    put(home, "sft_model", Label.RELEASED, "all|eps-8", Adapter({}, {}, "base", ("charge-eps-8", "charge-votes")))
    scorer = Adapter({}, {}, "base", ("charge-votes",), {"figures": {"held_out_accuracy": 0.75}, "curve": []})
    put(home, "reward_model", Label.RELEASED, "all|eps-8", scorer)
    report = {"before": FIGURES, "after": FIGURES, "baseline": None, "noise_floor": 0.125, "examples": {}}
    put(home, "quality_report", Label.RELEASED, "all|eps-8", Document(report, "", ("charge-eps-8",)))
    real = PrivateTable(pl.LazyFrame({"text": [SECRET]}), corpus_id="corpus", snapshot="1")
    put(home, "real_instructions", Label.PRIVATE, None, real)
    put(home, "synthetic_pool", Label.RELEASED, "all|no-dp", Table(pl.LazyFrame({"text": [SECRET]}), ("unbounded",)))
    return home


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_a_view_spans_every_partition_of_a_released_table(home: Path, state: LedgerState) -> None:
    rows = ask(rebuild(home, state), "from synthetic_pool order by level")
    assert rows == [("all", "eps-1", "pool-0", "made at eps-1"), ("all", "eps-8", "pool-0", "made at eps-8")]


def test_lineage_lists_the_charges_of_every_released_artifact(home: Path, state: LedgerState) -> None:
    assert set(ask(rebuild(home, state), "from lineage")) == {
        ("synthetic_pool", "all", "eps-8", "charge-eps-8"),
        ("synthetic_pool", "all", "eps-1", "charge-eps-1"),
        ("sft_model", "all", "eps-8", "charge-eps-8"),
        ("sft_model", "all", "eps-8", "charge-votes"),
        ("reward_model", "all", "eps-8", "charge-votes"),
        ("quality_report", "all", "eps-8", "charge-eps-8"),
    }


def test_costs_state_the_epsilon_of_every_charge_alone(home: Path, state: LedgerState) -> None:
    (charge,) = state.charges.values()
    plan = small_plan()
    epsilon = accounting.epsilon(plan.events[HISTOGRAM], plan.delta)
    rows = ask(rebuild(home, state), "select charge_id, mechanism, cohort, level, epsilon, delta, settled from costs")
    assert rows == [(charge.charge_id, HISTOGRAM, "all", "eps-8", epsilon, plan.delta, False)]


def test_an_event_is_json_and_a_voided_charge_costs_nothing(home: Path, state: LedgerState) -> None:
    (charge,) = state.charges.values()
    path = rebuild(home, state)
    (form,) = ask(path, "select event from costs where not voided")
    assert json.loads(str(form[0])) == charge.event
    state.charges[charge.charge_id] = replace(charge, voided=True)
    assert ask(rebuild(home, state), "select epsilon, voided from costs") == [(0.0, True)]


def test_metrics_are_the_figures_of_the_quality_reports_and_the_reward_models(home: Path, state: LedgerState) -> None:
    figures = {("before", *figure) for figure in FIGURES.items()} | {("after", *figure) for figure in FIGURES.items()}
    figures |= {("votes", "noise_floor", 0.125), ("reward_model", "held_out_accuracy", 0.75)}
    assert set(ask(rebuild(home, state), "from metrics")) == {("all", "eps-8", *figure) for figure in figures}


def test_statements_are_listed_with_both_epsilons_and_their_terms(home: Path, state: LedgerState) -> None:
    statement = planned()
    put(home, "privacy_statement", Label.RELEASED, "all|eps-8", Document(statement, "", ("charge-votes",)))
    (row,) = ask(rebuild(home, state), "from statements")
    guarantee = statement["guarantee"]
    assert row[:5] == (
        "all", "eps-8", guarantee["headline_epsilon"], guarantee["headline_basis"], guarantee["lineage_epsilon"]
    )  # fmt: skip
    assert row[5:] == (1e-5, 8.0, "user, or one row that names no user", 2, "ADD_OR_REMOVE_ONE")


def test_nothing_of_the_private_zone_is_in_it(home: Path, state: LedgerState) -> None:
    path = rebuild(home, state)
    names = [str(name) for (name,) in ask(path, "select table_name from information_schema.tables")]
    assert sorted(names) == ["costs", "lineage", "metrics", "statements", "synthetic_pool"]
    content = repr([ask(path, f"from {name}") for name in names])
    assert "made at eps-8" in content
    assert SECRET not in content
    assert "no-dp" not in content
    assert "unbounded" not in content


def test_an_empty_data_folder_has_an_empty_catalog(tmp_path: Path) -> None:
    path = rebuild(tmp_path, LedgerState())
    assert [ask(path, f"from {name}") for name in EMPTY] == [[]] * len(EMPTY)


def test_an_open_reader_neither_stops_a_rebuild_nor_sees_it(home: Path, state: LedgerState) -> None:
    path, count = rebuild(home, state), "select count(*) from lineage where asset = 'synthetic_pool'"
    with duckdb.connect(str(path), read_only=True) as reader:
        put(home, "synthetic_pool", Label.RELEASED, "all|eps-5.94", Table(pl.LazyFrame({"text": ["new"]}), ("more",)))
        rebuild(home, state)
        assert reader.execute(count).fetchone() == (2,)
    assert ask(path, count) == [(3,)]


def test_whoever_connects_during_swaps_gets_an_old_or_a_new_catalog_whole(home: Path, state: LedgerState) -> None:
    """In processes of their own: within one, DuckDB hands out the database that it has open."""
    path, counts = rebuild(home, state), "select count(*), count(distinct asset) from lineage"
    program = (
        "import sys, duckdb\n"
        "while True:\n"
        "    with duckdb.connect(sys.argv[1], read_only=True) as reader:\n"
        "        pool = reader.execute('from synthetic_pool').fetchall()\n"
        "        print(reader.execute(sys.argv[2]).fetchall(), len(pool), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), counts], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        seen = {reader.stdout.readline()}
        for number in range(10):
            put(home, f"another_{number}", Label.RELEASED, "all|eps-8", Adapter({}, {}, "base", ("charge-votes",)))
            rebuild(home, state)
        seen |= {reader.stdout.readline() for _ in range(20)}
        assert reader.poll() is None
        reader.terminate()
        assert "Error" not in reader.communicate()[1]
    assert seen <= {f"[({6 + new}, {4 + new})] 2\n" for new in range(11)}
    assert len(seen) > 1


def test_views_follow_a_copy_whose_place_is_said_and_a_rebuild_after_a_move(home: Path, state: LedgerState) -> None:
    rebuild(home, state)
    moved = home.with_name("moved")
    home.rename(moved)
    with duckdb.connect(str(catalog_file(moved)), read_only=True) as reader:
        with pytest.raises(duckdb.IOException):
            reader.execute("from synthetic_pool")
        reader.execute(f"set variable {RELEASED_VARIABLE} = '{moved / 'released'}'")
        assert len(reader.execute("from synthetic_pool").fetchall()) == 2
    assert len(ask(rebuild(moved, state), "from synthetic_pool")) == 2


@pytest.mark.parametrize("name", ["year=2026", "a[b]*c"])
def test_the_name_of_the_data_folder_adds_nothing_and_matches_nothing_else(
    home: Path, state: LedgerState, name: str
) -> None:
    moved = home.rename(home.with_name(name))
    rows = ask(rebuild(moved, state), "from synthetic_pool order by level")
    assert rows == [("all", "eps-1", "pool-0", "made at eps-1"), ("all", "eps-8", "pool-0", "made at eps-8")]


def test_a_rebuild_that_fails_leaves_the_old_catalog_and_no_temporary_file(home: Path, state: LedgerState) -> None:
    path = rebuild(home, state)
    before = path.read_bytes()
    report = artifact_folder(home, ["quality_report"], Label.RELEASED, "all|eps-8") / "document.json"
    report.write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        rebuild(home, state)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir() if item.is_file()] == [catalog_file(home).name]


def test_it_is_written_for_older_clients(home: Path, state: LedgerState) -> None:
    with duckdb.connect(str(rebuild(home, state)), read_only=True) as connection:
        (tags,) = connection.execute("select tags from duckdb_databases() where database_name = 'catalog'").fetchall()
    assert STORAGE_VERSION in str(tags)
