"""Every kind of artifact as a folder and back, with what it descends from."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.privacy.labels import Zone
from resources.storage import artifact_files
from resources.storage.adapter_io import PROVENANCE_FILE
from resources.storage.artifact_files import UnreadableArtifact, read_artifact, stored_charge_ids, write_artifact
from resources.storage.zones import atomic_folder
from tests.opened_files import opened_files

IDS = ("charge-a", "charge-b")
ROWS = pl.DataFrame(
    {"synthetic_id": ["pool-0", "pool-1"], "vector": [[0.0, 1.0], [1.0, 0.0]], "num_tokens": [3, None]},
    schema={"synthetic_id": pl.String(), "vector": pl.Array(pl.Float32, 2), "num_tokens": pl.Int64()},
)
Write = Callable[[object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_folder(artifact: object) -> Path:
        folder = tmp_path / "asset" / "artifact"
        folder.mkdir(parents=True)
        write_artifact(folder, artifact)  # type: ignore[arg-type]
        return folder

    return to_folder


def rows_of(table: object) -> pl.DataFrame:
    """The rows of either kind of table."""
    if isinstance(table, Table):
        return table.collect()
    assert isinstance(table, PrivateTable)
    kept: list[pl.DataFrame] = []
    table.store(lambda rows: kept.append(rows.collect()))
    return kept[0]


def test_a_table_keeps_rows_types_and_charge_ids(write: Write) -> None:
    read = read_artifact(write(Table(ROWS.lazy(), IDS)))
    assert isinstance(read, Table)
    assert read.charge_ids == IDS
    assert_frame_equal(read.collect(), ROWS)


def test_a_private_table_keeps_rows_corpus_and_snapshot_and_stays_private(write: Write) -> None:
    read = read_artifact(write(PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="2026-11")))
    assert isinstance(read, PrivateTable)
    assert (read.corpus_id, read.snapshot) == ("corpus", "2026-11")
    assert_frame_equal(rows_of(read), ROWS)


def test_an_adapter_keeps_tensors_configuration_charge_ids_and_record(write: Write) -> None:
    weights = {"layer.lora_A": np.arange(6, dtype=np.float32).reshape(2, 3)}
    read = read_artifact(write(Adapter(weights, {"r": 2}, "base", IDS, {"signal_to_noise": 0.5})))
    assert isinstance(read, Adapter)
    assert (read.config, read.base_model, read.charge_ids, read.record) == (
        {"r": 2},
        "base",
        IDS,
        {"signal_to_noise": 0.5},
    )
    assert np.array_equal(read.weights["layer.lora_A"], weights["layer.lora_A"])


@pytest.mark.parametrize("html", [None, "<p>Über ε</p>\n"])
def test_a_document_keeps_data_pages_and_charge_ids(write: Write, html: str | None) -> None:
    document = Document({"epsilon": 8.0, "charges": ["a"]}, "# Über ε\n", IDS, html)
    folder = write(document)
    assert read_artifact(folder) == document
    assert (folder / "document.html").exists() is (html is not None)


@pytest.mark.parametrize(
    "artifact",
    [Table(ROWS.lazy(), IDS), Adapter({"a": np.zeros(1, np.float32)}, {}, "base", IDS), Document({}, "", IDS)],
    ids=["table", "adapter", "document"],
)
def test_the_charge_ids_are_read_without_the_artifact(write: Write, artifact: object) -> None:
    assert stored_charge_ids(write(artifact)) == IDS


def test_charge_ids_of_all_shards_count(write: Write) -> None:
    folder = write(Table(ROWS.lazy(), IDS))
    metadata = {artifact_files.PROVENANCE: json.dumps({"charge_ids": ["charge-c"]})}
    ROWS.lazy().sink_parquet(folder / "part-00001-0123456789abcdef.parquet", metadata=metadata)
    assert stored_charge_ids(folder) == (*IDS, "charge-c")


def test_a_private_table_is_no_release_and_has_no_charge_ids(write: Write) -> None:
    folder = write(PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="1"))
    with pytest.raises(UnreadableArtifact, match="private"):
        stored_charge_ids(folder)


def test_a_private_table_of_an_earlier_version_is_refused_with_what_to_do(write: Write) -> None:
    folder = write(PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="1"))
    (folder / PROVENANCE_FILE).unlink()
    (shard,) = folder.iterdir()
    provenance = {artifact_files.PROVENANCE: json.dumps({"corpus_id": "corpus", "snapshot": "1"})}
    ROWS.write_parquet(shard, metadata=provenance)
    with pytest.raises(UnreadableArtifact, match="earlier version; materialize it again"):
        read_artifact(folder)


def test_what_is_known_of_a_private_table_is_read_without_its_rows(write: Write) -> None:
    folder = write(PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="1", made_with={"embedder": "one"}))
    with opened_files(folder) as opened:
        table = read_artifact(folder)
        assert isinstance(table, PrivateTable)
        assert (table.snapshot, table.made_with, table.width("vector")) == ("1", {"embedder": "one"}, 2)
    assert opened == {folder / PROVENANCE_FILE}


def test_a_table_without_provenance_is_no_release_of_ours(write: Write) -> None:
    folder = write(Table(ROWS.lazy(), IDS))
    ROWS.write_parquet(folder / "part-00001-0123456789abcdef.parquet")
    with pytest.raises(UnreadableArtifact, match="no release"):
        stored_charge_ids(folder)


@pytest.mark.parametrize(
    "table",
    [Table(ROWS.clear().lazy(), IDS), PrivateTable(ROWS.clear().lazy(), corpus_id="corpus", snapshot="1")],
    ids=["released", "private"],
)
def test_an_empty_table_keeps_its_schema(write: Write, table: object) -> None:
    read = read_artifact(write(table))
    assert type(read) is type(table)
    assert_frame_equal(rows_of(read), ROWS.clear())


def test_a_table_over_several_shards_keeps_every_row_in_order(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_files, "MAX_ROWS_PER_SHARD", 10)
    rows = pl.DataFrame({"number": range(95)})
    folder = write(Table(rows.lazy(), IDS))
    shards = sorted(folder.glob(artifact_files.SHARDS))
    assert len(shards) > 5
    assert max(pl.scan_parquet(shard).select(pl.len()).collect().item() for shard in shards) <= 10
    assert_frame_equal(rows_of(read_artifact(folder)), rows)


def test_every_shard_says_what_it_descends_from(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_files, "MAX_ROWS_PER_SHARD", 10)
    folder = write(Table(pl.LazyFrame({"number": range(95)}), IDS))
    kept = [pl.read_parquet_metadata(shard)[artifact_files.PROVENANCE] for shard in folder.glob("*")]
    assert [json.loads(provenance)["charge_ids"] for provenance in kept] == [list(IDS)] * len(kept)


def test_a_table_keeps_its_record(write: Write) -> None:
    record = {"evidence": {"noise_stddev": 0.1 + 0.2, "noised_bins": 4}}
    read = read_artifact(write(Table(ROWS.lazy(), IDS, record)))
    assert isinstance(read, Table)
    assert read.record == record


def test_a_private_table_keeps_the_verdict_on_its_preparation(write: Write) -> None:
    table = PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="1", preparation="user-wise")
    read = read_artifact(write(table))
    assert isinstance(read, PrivateTable)
    assert read.preparation == "user-wise"


def test_a_document_without_a_bound_stays_readable(write: Write) -> None:
    read = read_artifact(write(Document({"epsilon": math.inf}, "", ())))
    assert isinstance(read, Document)
    assert read.data["epsilon"] == math.inf


@pytest.mark.parametrize("make", [True, False], ids=["empty folder", "no folder"])
def test_a_folder_without_an_artifact_is_refused_with_the_asset_to_materialize(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "synthetic_pool" / "all"
    if make:
        folder.mkdir(parents=True)
    with pytest.raises(UnreadableArtifact, match="synthetic_pool"):
        read_artifact(folder)


@pytest.mark.parametrize(
    "tables",
    [
        [PrivateTable(ROWS.lazy(), corpus_id=corpus, snapshot="1") for corpus in ("corpus", "another")],
        [Table(ROWS.lazy(), (charge,)) for charge in ("charge-a", "charge-b")],
    ],
    ids=["private", "released"],
)
def test_a_table_that_was_replaced_since_it_was_handed_over_is_never_read_under_the_earlier_provenance(
    tmp_path: Path, tables: list[Table | PrivateTable]
) -> None:
    folder = tmp_path / "table"
    handed = []
    for table in tables:
        with atomic_folder(folder, Zone.PRIVATE) as temporary:
            write_artifact(temporary, table)
        handed.append(read_artifact(folder))
    with pytest.raises(FileNotFoundError):
        rows_of(handed[0])
    assert_frame_equal(rows_of(handed[1]), ROWS)


def test_a_released_table_of_the_same_content_has_the_same_files(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        write_artifact(folder, Table(ROWS.lazy(), IDS))
        names.append([path.name for path in folder.iterdir()])
    assert names[0] == names[1]


def test_the_file_names_of_a_private_table_follow_from_no_row(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        write_artifact(folder, PrivateTable(ROWS.lazy(), corpus_id="corpus", snapshot="1"))
        names.update(path.name for path in folder.glob(artifact_files.SHARDS))
    assert len(names) == 2


def test_an_adapter_that_is_replaced_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapter"

    def store(charge_id: str) -> None:
        with atomic_folder(folder, Zone.RELEASED) as temporary:
            write_artifact(temporary, Adapter({"a": np.zeros(1, np.float32)}, {}, "base", (charge_id,)))

    load = artifact_files.load_adapter

    def replaced_meanwhile(place: Path) -> Adapter:
        loaded = load(place)
        store("charge-b")
        return loaded

    store("charge-a")
    monkeypatch.setattr(artifact_files, "load_adapter", replaced_meanwhile)
    with pytest.raises(UnreadableArtifact, match="replaced while it was read"):
        read_artifact(folder)
