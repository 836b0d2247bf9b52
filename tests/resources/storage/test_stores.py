"""Where artifacts lie, what crosses the boundary between the zones, and how an asset reads several partitions."""

import errno
import gc
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable, Table, union_of_ids
from dp_assets.pipeline.asset import labeled_asset, table_schema
from dp_assets.privacy.labels import LABEL_METADATA, Label, Zone
from dp_assets.privacy.metadata import PUBLIC_SOURCE, RESTRICTED, PrivateFigure, check_private_keys
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import PrivateStepFailed, log_file
from resources.storage import stores
from resources.storage.allowed_files import UnexpectedContent, UnexpectedFile
from resources.storage.artifact_files import Artifact, read_artifact, write_artifact
from resources.storage.stores import (
    COLUMNS_METADATA,
    ArtifactStore,
    BoundaryViolation,
    OpenRows,
    ReleaseStore,
    RowsErased,
    artifact_folder,
)
from resources.storage.zones import atomic_folder
from tests.resources.ledgers import charge, register, terms
from tests.toy_graph import (
    CORPUS,
    NOISE,
    OTHER_PARTITION,
    PARTITION,
    POOL,
    SECRET,
    SILENT,
    TOYS,
    UNPROTECTED,
    made,
    materialize,
    noise,
    pool,
    secrets,
)


def folders(home: Path) -> set[str]:
    """The folders that hold an artifact, relative to the data folder; what a step opened has a second name in tmp."""
    found = {str(path.parent.relative_to(home)) for path in home.rglob("part-*.parquet")}
    return {folder for folder in found if not folder.startswith("private/tmp/")}


def test_every_artifact_lies_in_the_zone_of_its_label(tmp_path: Path) -> None:
    materialize(tmp_path)
    assert folders(tmp_path) == {
        "private/artifacts/secrets",
        "released/artifacts/noise/all/eps-8",
        "released/artifacts/pool/all/eps-8",
    }


def test_nothing_made_without_noise_reaches_the_released_zone(tmp_path: Path) -> None:
    materialize(tmp_path, UNPROTECTED)
    assert folders(tmp_path) == {
        "private/artifacts/secrets",
        "private/artifacts/noise/all/no-dp",
        "private/artifacts/pool/all/no-dp",
    }
    assert not (tmp_path / "released").exists()


def test_an_unpartitioned_table_has_one_place_whatever_partition_runs(tmp_path: Path) -> None:
    materialize(tmp_path, PARTITION)
    materialize(tmp_path, OTHER_PARTITION)
    assert [place for place in folders(tmp_path) if "secrets" in place] == ["private/artifacts/secrets"]


def test_private_artifacts_are_closed_to_others(tmp_path: Path) -> None:
    materialize(tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "private").rglob("*.parquet")}
    assert modes == {0o600}
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("asset", ["noise", "pool"])
def test_a_later_run_reads_what_an_earlier_one_stored(tmp_path: Path, asset: str) -> None:
    materialize(tmp_path)
    again = materialize(tmp_path, selection=[asset])
    assert again.success
    assert again.output_for_node(asset).charge_ids == ("charge-eps-8",)


@pytest.mark.parametrize("becomes", ["another table", "nothing"])
def test_a_reader_keeps_the_private_table_it_opened_though_another_run_replaces_it(
    tmp_path: Path, becomes: str
) -> None:
    place, seen = artifact_folder(tmp_path, ["secrets"], Label.PRIVATE, None), []

    @labeled_asset(label=Label.MECHANISM, group="toys", kinds={"polars"}, columns=NOISE)
    def slow(secrets: PrivateTable) -> dg.MaterializeResult[Table]:
        """Another run stores its own private table while this one has opened the former."""
        with atomic_folder(place, Zone.PRIVATE) as temporary:
            other = PrivateTable(pl.LazyFrame({"text": ["of another corpus"]}), corpus_id="other", snapshot="2")
            write_artifact(temporary, other)
        if becomes == "nothing":
            shutil.rmtree(place)
        secrets.store(lambda rows: seen.append((secrets.corpus_id, rows.collect()["text"].to_list())))
        return made(Table(pl.LazyFrame({"noisy_votes": [1]})))

    assert materialize(tmp_path, assets=[secrets, slow]).success
    assert seen == [(CORPUS, [SECRET])]
    gc.collect()
    assert list((tmp_path / "private/tmp").iterdir()) == []


def test_a_private_table_is_read_on_a_file_system_without_second_names_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert materialize(tmp_path).success


def test_a_rerun_replaces_the_artifact(tmp_path: Path) -> None:
    materialize(tmp_path)
    folder = artifact_folder(tmp_path, ["pool"], Label.RELEASED, PARTITION)
    (folder / "left over").touch()
    materialize(tmp_path, selection=["pool"])
    assert [path.name[:11] for path in folder.iterdir()] == ["part-00000-"]


@labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"})
def greedy(secrets: PrivateTable) -> Table:
    """A released asset that asks for a private table."""
    return Table(pl.LazyFrame({"text": ["whatever"]}))


@labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"})
def mislabeled(noise: Table) -> PrivateTable:
    """A released asset that returns a private table."""
    return PrivateTable(noise.rows, corpus_id="corpus", snapshot="1")


def test_a_private_table_that_was_made_before_an_erasure_is_not_stored_after_it(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    corpus_id = register(ledger).corpus_id

    @labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
    def overtaken() -> PrivateTable:
        """An erasure is logged after its rows were prepared."""
        ledger.record_erasure(corpus_id, "user:gone", "asked for")
        return PrivateTable(pl.LazyFrame({"unit_id": ["user:gone"]}), corpus_id=corpus_id, snapshot="1")

    with pytest.raises(RowsErased, match="materialize it again"):
        materialize(tmp_path, None, assets=[overtaken])
    assert folders(tmp_path) == set()


def test_a_release_without_noise_that_was_made_before_an_erasure_is_not_stored_after_it(tmp_path: Path) -> None:
    ledger, releases = Ledger(private_root=str(tmp_path / "private")), ReleaseStore(home=str(tmp_path))
    corpus_id = ledger.register(locator="somewhere", terms=terms(is_public=True), plans=[]).corpus_id
    charge_id = charge(ledger, corpus_id, "no-dp").charge_id
    exact = Table(pl.LazyFrame({"noisy_votes": [1]}), (charge_id,))
    releases.save("dp_histogram", "no-dp", "before", exact)
    ledger.record_erasure(corpus_id, "user:gone", "asked for")
    with pytest.raises(RowsErased):
        releases.save("dp_histogram", "no-dp", "after", exact)
    assert not releases.has("dp_histogram", "no-dp", "after")


@dg.asset_check(asset=secrets)
def curious(secrets: PrivateTable) -> dg.AssetCheckResult:
    """A check that asks for a private table, whose outcome people would see."""
    return dg.AssetCheckResult(passed=True)


@pytest.mark.parametrize("asset", [greedy, mislabeled], ids=["reads", "stores"])
def test_a_released_asset_gets_no_private_table_in_or_out(tmp_path: Path, asset: dg.AssetsDefinition) -> None:
    with pytest.raises(BoundaryViolation, match=asset.key.to_user_string()):
        materialize(tmp_path, assets=[*TOYS, asset])
    assert not any(asset.key.to_user_string() in place for place in folders(tmp_path))


@labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False, columns=NOISE)
def open_to_all() -> dg.MaterializeResult[Table]:
    """Exact rows in a value that whoever gets it may read, at any time, with a figure of them beside it."""
    return dg.MaterializeResult(value=Table(pl.LazyFrame({"noisy_votes": [1, 2]})), metadata={"units": 2})


def test_a_private_asset_holds_its_rows_in_a_private_table_only(tmp_path: Path) -> None:
    with pytest.raises(OpenRows, match="open_to_all is labeled private"):
        materialize(tmp_path, None, assets=[open_to_all])
    assert folders(tmp_path) == set()


def test_a_check_gets_no_private_table(tmp_path: Path) -> None:
    with pytest.raises(BoundaryViolation, match="curious"):
        materialize(tmp_path, None, assets=[secrets, curious])


@dg.asset(
    ins={"noise": dg.AssetIn(partition_mapping=dg.SpecificPartitionsPartitionMapping([PARTITION, OTHER_PARTITION]))},
    metadata={
        LABEL_METADATA: str(Label.RELEASED),
        COLUMNS_METADATA: table_schema(pl.Schema({"partition": pl.String(), "rows": pl.Int64()})),
    },
    io_manager_key="io_manager",
)
def comparison(noise: dict[str, Table]) -> Table:
    """Reads two partitions of one upstream asset."""
    sizes = pl.LazyFrame({"partition": sorted(noise), "rows": [noise[key].collect().height for key in sorted(noise)]})
    return Table(sizes, union_of_ids(*noise.values()))


def test_an_asset_over_two_partitions_gets_both_and_descends_from_both(tmp_path: Path) -> None:
    for partition in (PARTITION, OTHER_PARTITION):
        materialize(tmp_path, partition, assets=[secrets, noise])
    dg.materialize(
        [secrets, noise, comparison],
        selection=["comparison"],
        resources={"io_manager": ArtifactStore(home=str(tmp_path))},
        run_config=SILENT,
    )
    stored = read_artifact(tmp_path / "released/artifacts/comparison")
    assert isinstance(stored, Table)
    assert stored.charge_ids == ("charge-eps-1", "charge-eps-8")
    assert stored.collect()["partition"].to_list() == [OTHER_PARTITION, PARTITION]


def test_a_release_is_found_again_under_its_key_only(tmp_path: Path) -> None:
    releases = ReleaseStore(home=str(tmp_path))
    assert not releases.has("dp_histogram", "eps-8", "key")
    releases.save("dp_histogram", "eps-8", "key", Table(pl.LazyFrame({"bin_id": [0]}), ("charge",)))
    assert releases.has("dp_histogram", "eps-8", "key")
    assert not releases.has("dp_histogram", "eps-8", "another key")
    loaded = releases.load("dp_histogram", "eps-8", "key")
    assert isinstance(loaded, Table)
    assert loaded.charge_ids == ("charge",)


def test_a_release_without_noise_stays_in_the_private_zone(tmp_path: Path) -> None:
    releases = ReleaseStore(home=str(tmp_path))
    releases.save("dp_histogram", "no-dp", "key", Table(pl.LazyFrame({"bin_id": [0]}), ("charge",)))
    assert folders(tmp_path) == {"private/releases/dp_histogram/key"}


def test_no_stored_file_of_the_released_zone_holds_private_text(tmp_path: Path) -> None:
    materialize(tmp_path)
    texts: Mapping[Path, str] = {
        path: pl.read_parquet(path).write_json() for path in (tmp_path / "released").rglob("*.parquet")
    }
    assert len(texts) == len([noise, pool])
    assert not [path for path, text in texts.items() if "private zone" in text]


def test_a_released_artifact_with_another_file_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_more(folder: Path, artifact: Artifact) -> None:
        write_artifact(folder, artifact)
        (folder / "trainer.log").write_text("step 1 of 3")

    monkeypatch.setattr(stores, "write_artifact", write_more)
    with pytest.raises(UnexpectedFile, match=r"released Table holds 'trainer\.log'"):
        materialize(tmp_path)
    assert folders(tmp_path) == {"private/artifacts/secrets"}
    with pytest.raises(UnexpectedFile):
        ReleaseStore(home=str(tmp_path)).save("dp_histogram", "eps-8", "key", Table(pl.LazyFrame({"bin_id": [0]})))
    assert not ReleaseStore(home=str(tmp_path)).has("dp_histogram", "eps-8", "key")


def rewritten(change: Callable[[pl.LazyFrame], pl.LazyFrame], columns: pl.Schema | None = NOISE) -> dg.AssetsDefinition:
    """A released table that is declared with these columns, and made with others."""

    @labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"}, columns=columns)
    def careless(noise: Table) -> dg.MaterializeResult[Table]:
        return made(Table(change(noise.rows), noise.charge_ids))

    return careless


@pytest.mark.parametrize(
    "careless",
    [
        rewritten(lambda rows: rows.with_columns(exact_votes=pl.col("noisy_votes"))),
        rewritten(lambda rows: rows.select(pl.col("noisy_votes").cast(pl.Float64))),
        rewritten(lambda rows: rows.select(votes="noisy_votes")),
        rewritten(lambda rows: rows.with_columns(text=pl.lit("a")), pl.Schema({"noisy_votes": pl.Int64()})),
        rewritten(lambda rows: rows.select(pl.lit("a").alias("text"), "noisy_votes"), POOL),
        rewritten(lambda rows: rows, columns=None),
    ],
    ids=["one more", "of another type", "under another name", "a text", "in another order", "none declared"],
)
def test_a_released_table_has_exactly_its_declared_columns(tmp_path: Path, careless: dg.AssetsDefinition) -> None:
    with pytest.raises(UnexpectedContent, match="careless would be released with the columns"):
        materialize(tmp_path, assets=[*TOYS, careless])
    assert not any("careless" in place for place in folders(tmp_path))


@labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
def talkative() -> dg.MaterializeResult[PrivateTable]:
    """A private asset that tells how many rows it has."""
    rows = pl.LazyFrame({"text": ["a", "b"]})
    return dg.MaterializeResult(
        value=PrivateTable(rows, corpus_id="corpus", snapshot="1"), metadata={"dagster/row_count": 2}
    )


def test_a_private_table_with_further_metadata_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(PrivateFigure, match="dagster/row_count on a private asset"):
        materialize(tmp_path, None, assets=[talkative])
    assert folders(tmp_path) == set()


def test_figures_of_rows_are_shown_of_a_public_source_only() -> None:
    figures = {f"{RESTRICTED}mauve_before", f"{RESTRICTED}mauve_after"}
    check_private_keys({*figures, PUBLIC_SOURCE})
    with pytest.raises(PrivateFigure, match="mauve_after, restricted/mauve_before on a private asset"):
        check_private_keys(figures)


@labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
def lazy() -> dg.MaterializeResult[PrivateTable]:
    """Private rows that are computed when they are stored, and fail then."""
    numbers = pl.LazyFrame({"text": ["my number is 4929"]}).select(pl.col("text").cast(pl.Int64))
    return made(PrivateTable(numbers, corpus_id="corpus", snapshot="1"))


def test_what_fails_while_private_rows_are_stored_is_private(tmp_path: Path) -> None:
    with pytest.raises(PrivateStepFailed) as failure:
        materialize(tmp_path, None, assets=[lazy])
    assert failure.value.__cause__ is failure.value.__context__ is None
    assert "4929" in log_file(tmp_path / "private").read_text()
