"""What is out of date runs and nothing else, and how a run ends is told."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.pipeline.asset import labeled_asset
from dp_assets.pipeline.asset_metadata import private_version
from dp_assets.pipeline.running import DAGSTER_HOME, Outcome, materialize, out_of_date, persistent_instance
from dp_assets.privacy.labels import Label
from resources.storage.stores import artifact_folder
from tests.toy_graph import (
    CORPUS,
    NOISE,
    OTHER_PARTITION,
    PARTITION,
    PROFILE,
    SNAPSHOT,
    definitions,
    made,
    noise,
    pool,
    secrets,
)

ALL = ["secrets", "noise", "pool"]


class Workplace:
    """A data folder and an instance, with the two functions under test."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.defs = definitions(home)

    def stale(self, partition: str = PARTITION, **changes: Any) -> list[str]:
        place = {"home": self.home, "partition": partition}
        decided_by = {"profile": PROFILE, "corpora": [CORPUS], "snapshot": SNAPSHOT, **changes}
        keys = out_of_date(self.defs, self.instance, **place, **decided_by)
        return [key.to_user_string() for key in keys]

    def run(self, *assets: str, partition: str = PARTITION) -> Outcome:
        keys = [dg.AssetKey(name) for name in assets]
        return materialize(self.defs, self.instance, partition=partition, assets=keys)


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Workplace(tmp_path, instance)


@pytest.fixture
def finished(workplace: Workplace) -> Workplace:
    assert workplace.run(*ALL).success
    return workplace


def test_everything_is_out_of_date_at_first_in_the_order_of_the_graph(workplace: Workplace) -> None:
    assert workplace.stale() == ALL


def test_nothing_is_out_of_date_after_a_run(finished: Workplace) -> None:
    assert finished.stale() == []


def test_another_profile_makes_everything_out_of_date(finished: Workplace) -> None:
    assert finished.stale(profile="another digest") == ALL


def test_settings_of_its_own_make_an_asset_out_of_date_with_what_is_below_and_nothing_above(
    finished: Workplace,
) -> None:
    assert finished.stale(own_settings={"noise": "another annotator"}.get) == ["noise", "pool"]


def test_an_erasure_makes_everything_out_of_date_because_the_snapshot_is_another(finished: Workplace) -> None:
    assert finished.stale(snapshot=f"{SNAPSHOT}+erased-1") == ALL


@pytest.mark.parametrize(
    ("asset", "label", "partition", "stale"),
    [
        ("pool", Label.RELEASED, PARTITION, ["pool"]),
        ("noise", Label.MECHANISM, PARTITION, ["noise", "pool"]),
        ("secrets", Label.PRIVATE, None, ALL),
    ],
)
def test_an_artifact_that_was_removed_is_out_of_date_with_everything_below(
    finished: Workplace, asset: str, label: Label, partition: str | None, stale: list[str]
) -> None:
    shutil.rmtree(artifact_folder(finished.home, [asset], label, partition))
    assert finished.stale() == stale


def test_what_is_older_than_its_upstream_is_out_of_date(finished: Workplace) -> None:
    assert finished.run("noise").success
    assert finished.stale() == ["pool"]


def secrets_of(snapshot: str) -> dg.AssetsDefinition:
    """The private table of another snapshot."""

    @labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
    def secrets() -> dg.MaterializeResult[PrivateTable]:
        """Private rows of that snapshot."""
        return made(PrivateTable(pl.LazyFrame({"text": ["another"]}), corpus_id="corpus", snapshot=snapshot))

    return secrets


def test_a_private_table_made_again_from_the_same_snapshot_makes_no_partition_out_of_date(finished: Workplace) -> None:
    assert finished.run(*ALL, partition=OTHER_PARTITION).success
    assert finished.run("secrets").success
    assert finished.stale() == finished.stale(OTHER_PARTITION) == []


def test_a_private_table_of_another_snapshot_makes_every_partition_out_of_date(finished: Workplace) -> None:
    finished.defs = definitions(finished.home, [secrets_of("2"), noise, pool])
    assert finished.run("secrets").success
    assert finished.stale(snapshot="2") == ["noise", "pool"]


def test_a_data_version_that_says_nothing_of_rows_is_not_trusted(workplace: Workplace) -> None:
    @labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
    def secrets() -> dg.MaterializeResult[PrivateTable]:
        """Private rows, stored as by a version that named no data version."""
        table = PrivateTable(pl.LazyFrame({"text": ["some"]}), corpus_id="corpus", snapshot=SNAPSHOT)
        return dg.MaterializeResult(value=table, metadata=made(table).metadata)

    workplace.defs = definitions(workplace.home, [secrets, noise, pool])
    assert workplace.run(*ALL).success
    assert workplace.stale() == []
    assert workplace.run("secrets").success
    assert workplace.stale() == ["noise", "pool"]


def test_another_partition_shares_the_private_table_and_nothing_else(finished: Workplace) -> None:
    assert finished.stale(OTHER_PARTITION) == ["noise", "pool"]


def toys_of(corpus: str) -> list[dg.AssetsDefinition]:
    """The toys of a data folder whose ledger registered another corpus."""

    @labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
    def secrets() -> dg.MaterializeResult[PrivateTable]:
        """Private rows."""
        table = PrivateTable(pl.LazyFrame({"text": ["another"]}), corpus_id=corpus, snapshot=SNAPSHOT)
        return made(table, corpus)

    @labeled_asset(label=Label.MECHANISM, group="toys", kinds={"polars"}, columns=NOISE)
    def noise(secrets: PrivateTable) -> dg.MaterializeResult[Table]:
        """A release."""
        return made(Table(pl.LazyFrame({"noisy_votes": [1]})), corpus)

    @labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"}, columns=NOISE)
    def pool(noise: Table) -> dg.MaterializeResult[Table]:
        """Post-processing."""
        return made(noise, corpus)

    return [secrets, noise, pool]


def test_two_data_folders_under_one_instance_do_not_make_each_other_out_of_date(
    finished: Workplace, tmp_path: Path
) -> None:
    other = Workplace(tmp_path / "other", finished.instance)
    other.defs = definitions(other.home, toys_of("of the other"))
    assert other.stale(corpora=["of the other"]) == ALL
    for _ in range(25):  # more records than are looked at together
        assert other.run("secrets").success
    assert other.run(*ALL).success
    assert finished.stale() == other.stale(corpora=["of the other"]) == []
    assert finished.run("secrets").success
    assert finished.stale() == other.stale(corpora=["of the other"]) == []
    assert other.run("noise").success
    assert (finished.stale(), other.stale(corpora=["of the other"])) == ([], ["pool"])


def test_a_private_table_of_another_data_folder_never_passes_for_what_an_artifact_was_made_from() -> None:
    names = {"profile": PROFILE, "snapshot": SNAPSHOT, "code_version": "1"}
    assert private_version(corpus_id="one", **names) != private_version(corpus_id="other", **names)


def test_an_asset_of_an_older_code_version_is_out_of_date(finished: Workplace) -> None:
    @labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"}, code_version="2")
    def pool(noise: Table) -> dg.MaterializeResult[Table]:
        """The same table by newer code."""
        return made(noise)

    finished.defs = definitions(finished.home, [secrets, noise, pool])
    assert finished.stale() == ["pool"]


def with_pool_that(workplace: Workplace, act: Callable[[], None]) -> Workplace:
    """The same workplace, whose last asset does something else."""

    @labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"})
    def pool(noise: Table) -> dg.MaterializeResult[Table]:
        """Acts before it returns."""
        act()
        return made(noise)

    workplace.defs = definitions(workplace.home, [secrets, noise, pool])
    return workplace


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def break_down() -> None:
    try:
        raise KeyError("the detail")
    except KeyError as error:
        raise ValueError("what went wrong") from error


def test_an_interrupt_is_told_from_a_failure(workplace: Workplace) -> None:
    outcome = with_pool_that(workplace, interrupt).run(*ALL)
    assert (outcome.success, outcome.interrupted) == (False, True)
    assert [asset for asset, _ in outcome.failed] == ["pool"]


def test_a_failure_names_the_asset_and_the_first_cause(workplace: Workplace) -> None:
    outcome = with_pool_that(workplace, break_down).run(*ALL)
    assert outcome == Outcome(
        success=False, interrupted=False, made=("secrets", "noise"), failed=(("pool", "KeyError: 'the detail'"),)
    )


def test_after_a_failure_only_what_is_missing_is_out_of_date(workplace: Workplace) -> None:
    with_pool_that(workplace, break_down).run(*ALL)
    assert workplace.stale() == ["pool"]


def test_a_run_names_each_asset_on_standard_error_and_nothing_else(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    workplace.run(*ALL)
    captured = capfd.readouterr()
    assert captured.err.splitlines() == [f"== {name}" for name in ALL]
    assert captured.out == ""


def test_the_instance_keeps_what_ran_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DAGSTER_HOME, str(tmp_path / "dagster"))
    with persistent_instance() as instance:
        Workplace(tmp_path, instance).run(*ALL)
    with persistent_instance() as instance:
        assert Workplace(tmp_path, instance).stale() == []
        assert not instance.nux_enabled  # Dagster's invitation, which covers the page
    settings = yaml.safe_load((tmp_path / "dagster" / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] == 1
