"""`erase`: what it prints and refuses, and what the next run makes of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

import dp_assets.definitions
from dp_assets.cli import app
from dp_assets.cli.corpus import unit_named
from dp_assets.corpus.prepare import unit_of_user
from dp_assets.pipeline.corpus import snapshot_of
from dp_assets.pipeline.running import out_of_date
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.named import selected_profile
from resources.storage.artifact_files import SHARDS
from tests.cli.pipelines import pipeline_of
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import PARTITION, tiny_resources

USER, STRANGER = "user-7", "somebody-else"
PRIVATE_TABLES = ("real_instructions", "real_embeddings")
MADE = {*PRIVATE_TABLES, GENERATOR, "synthetic_pool", "synthetic_embeddings", "synthetic_bins", HISTOGRAM}
TO_THE_HISTOGRAM = [asset for asset in dp_assets.definitions.ALL_ASSETS if asset.key.to_user_string() in MADE]
ERASED = "1+erased-1"


def invoke(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answers)


def erasures(pipeline: CliPipeline) -> list[str]:
    (erased,) = pipeline.ledger.state().erasures.values() or [()]
    return list(erased)


def test_erasing_says_what_goes_what_stays_and_what_is_left_to_do(pipeline: CliPipeline) -> None:
    invoke("register")
    result = invoke("erase", USER, "--yes")
    assert result.exit_code == 0
    for words in ("Removed", "Stays", "Left to you", "charge", "release", "source", "backups", "new charge"):
        assert words in result.stdout
    assert erasures(pipeline) == [pipeline.ledger.erased_hash(unit_of_user(USER, key=pipeline.ledger.key))]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_what_is_printed_tells_nothing_about_the_unit(pipeline: CliPipeline, arguments: list[str]) -> None:
    (registration,) = [json.loads(invoke("register", "--json").stdout)]
    present = invoke("erase", USER, "--yes", *arguments)
    absent = invoke("erase", STRANGER, "--yes", *arguments)
    assert present.exit_code == absent.exit_code == 0
    assert present.stdout.replace("+erased-1", "+erased-2") == absent.stdout
    assert present.stderr == absent.stderr == ""
    assert registration["corpus_id"] in present.stdout
    assert USER not in present.stdout


def test_json_names_the_new_snapshot_and_every_list(pipeline: CliPipeline) -> None:
    invoke("register")
    printed = json.loads(invoke("erase", USER, "--yes", "--json").stdout)
    corpus_id, state = printed["corpus_id"], pipeline.ledger.state()
    assert printed["snapshot"] == state.snapshot(corpus_id, selected_profile().corpus.snapshot)
    assert all(printed[name] for name in ("removed", "stays", "next"))


def test_a_unit_id_and_standard_input_name_the_same_unit(pipeline: CliPipeline) -> None:
    invoke("register")
    unit_id = unit_of_user(USER, key=pipeline.ledger.key)
    assert invoke("erase", "-", "--yes", answers=f"{USER}\n").exit_code == 0
    assert invoke("erase", unit_id, "--unit-id", "--yes").exit_code == 0
    assert set(erasures(pipeline)) == {pipeline.ledger.erased_hash(unit_id)}


def test_nothing_is_erased_without_a_yes(pipeline: CliPipeline) -> None:
    invoke("register")
    assert invoke("erase", USER, answers="n\n").exit_code == 1
    assert not pipeline.ledger.state().erasures
    assert invoke("erase", USER, answers="y\n").exit_code == 0
    assert len(erasures(pipeline)) == 1


@pytest.mark.parametrize(
    "arguments", [["alice", "--unit-id"], [" "], ["-"], ["instruction:12", "--unit-id"]], ids=" ".join
)
def test_what_names_no_unit_is_wrong_usage(pipeline: CliPipeline, arguments: list[str]) -> None:
    invoke("register")
    assert invoke("erase", *arguments, *([] if arguments == ["-"] else ["--yes"]), answers=f"{USER}\n").exit_code == 2
    assert not pipeline.ledger.state().erasures


def test_a_user_is_no_unit_where_rows_are(pipeline: CliPipeline) -> None:
    text = pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(
        text.replace("[corpus]\n", '[corpus]\nunit = "instruction"\nmax_rows_per_unit = 1\n')
    )
    invoke("register")
    assert invoke("erase", USER, "--yes").exit_code == 2
    assert invoke("erase", "instruction:" + "0" * 32, "--unit-id", "--yes").exit_code == 0


def test_an_unregistered_corpus_has_nobody_to_erase(pipeline: CliPipeline) -> None:
    refused = invoke("erase", USER, "--yes")
    assert refused.exit_code == 1
    assert "dp-instructions register" in refused.stderr


class DownToVotes:
    """The graph down to the second mechanism, in this process, over a pipeline's data folder."""

    def __init__(self, pipeline: CliPipeline) -> None:
        self.pipeline, self.instance = pipeline, dg.DagsterInstance.ephemeral()
        self.resources = tiny_resources(selected_profile(), pipeline.home)

    def run(self, *selection: str, partition: str | None = PARTITION) -> bool:
        """Materialize these assets, or all of them; whether they succeeded."""
        return dg.materialize(
            TO_THE_HISTOGRAM,
            selection=list(selection) or None,
            partition_key=partition,
            resources=self.resources,
            instance=self.instance,
            raise_on_error=False,
        ).success

    @property
    def stale(self) -> set[str]:
        profile = selected_profile()
        keys = out_of_date(
            dp_assets.definitions.defs,
            self.instance,
            home=self.pipeline.home,
            partition=PARTITION,
            profile=profile.digest,
            corpora=self.pipeline.ledger.state().registrations,
            snapshot=snapshot_of(self.pipeline.ledger, profile),
        )
        return {key.to_user_string() for key in keys}

    def units(self, table: str) -> set[str]:
        return set(pl.read_parquet(self.pipeline.home / "private/artifacts" / table / SHARDS)["unit_id"])

    def charged(self, snapshot: str) -> list[str]:
        charges = self.pipeline.ledger.state().charges.values()
        return sorted(charge.mechanism for charge in charges if charge.snapshot == snapshot)


@pytest.fixture
def graph(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DownToVotes]:
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        assert invoke("register").exit_code == 0
        yield DownToVotes(pipeline)


@pytest.mark.slow
def test_after_an_erasure_everything_is_made_again_without_the_unit_under_new_charges(graph: DownToVotes) -> None:
    assert graph.run()
    assert not graph.stale & MADE
    unit_id = unit_of_user(USER, key=graph.pipeline.ledger.key)
    assert unit_id in graph.units(PRIVATE_TABLES[0])

    assert invoke("erase", USER, "--yes").exit_code == 0
    assert graph.stale >= MADE
    assert all(unit_id not in graph.units(table) for table in PRIVATE_TABLES)
    assert not graph.run()
    assert graph.charged(ERASED) == []
    assert not graph.stale & set(PRIVATE_TABLES)
    assert all(unit_id not in graph.units(table) for table in PRIVATE_TABLES)

    (corpus_id,) = graph.pipeline.ledger.state().registrations
    graph.pipeline.ledger.raise_budget(corpus_id, 60.0, "room for another pair")
    assert graph.run()
    assert graph.charged(ERASED) == graph.charged("1") == [GENERATOR, HISTOGRAM]


@pytest.mark.slow
def test_private_tables_of_an_older_snapshot_open_no_mechanism(graph: DownToVotes) -> None:
    assert graph.run("real_instructions", partition=None)
    ledger = graph.pipeline.ledger
    (corpus_id,) = ledger.state().registrations
    ledger.record_erasure(corpus_id, unit_of_user(USER, key=ledger.key), "broken off before anything was removed")
    assert not graph.run(GENERATOR)
    assert ledger.state().charges == {}


@pytest.mark.parametrize("name", ["", " ", "\t", "\ufeff\u200b"])
def test_a_user_id_that_nobody_can_see_names_nobody(name: str) -> None:
    with pytest.raises(typer.BadParameter, match="names nobody"):
        unit_named(name, is_unit_id=False, unit=PrivacyUnit.USER, key=b"key", is_confirmed=True)


def test_register_prints_the_registration(pipeline: CliPipeline) -> None:
    printed = json.loads(invoke("register", "--json").stdout)
    (registration,) = pipeline.ledger.state().registrations.values()
    assert printed == json.loads(json.dumps(registration.to_json()))
