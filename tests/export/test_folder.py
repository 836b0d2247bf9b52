"""The folder of an export: what its files hold, and that it appears whole or not at all."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import Document, Table
from dp_assets.cli.statements import checked_statement
from dp_assets.export import folder as writing
from dp_assets.export.folder import write_export
from dp_assets.export.names import public_names
from dp_assets.export.parts import ExportRefused, chosen_parts
from dp_assets.statements.reading import StatementError
from dp_assets.statements.statement import restated
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import verify
from resources.storage.artifact_files import read_artifact, stored_charge_ids, write_artifact
from tests.export.releases import IDS, MODEL_FOLDER, SETTINGS, gathered, put, release_everything, statement_in


def test_rows_keep_their_order_and_parts_keep_their_charges(exported: Path) -> None:
    rows = pl.read_parquet(exported / "data/pool/*.parquet")
    assert rows["synthetic_id"].to_list() == ["b", "a", "c"]
    assert stored_charge_ids(exported / "models/sft") == IDS
    manifest = json.loads((exported / "export.json").read_text())
    assert manifest["parts"]["pool"]["charge_ids"] == list(IDS[:1])
    assert manifest["together"]["charge_ids"] == list(IDS)


def test_shards_are_numbered_as_the_hub_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = release_everything(tmp_path / "data")
    monkeypatch.setattr("resources.storage.artifact_files.MAX_ROWS_PER_SHARD", 2)
    put(tmp_path / "data", "synthetic_pool", Table(pl.LazyFrame({"text": list("edcba")}), IDS[:1]))
    write_export(tmp_path / "out", gathered(tmp_path / "data", state, "pool"), SETTINGS, names={})
    shards = sorted(path.name for path in (tmp_path / "out/data/pool").iterdir())
    assert shards == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    assert pl.read_parquet(tmp_path / "out/data/pool/*.parquet")["text"].to_list() == list("edcba")


def test_no_path_of_the_machine_is_in_any_file(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data", base_model=MODEL_FOLDER))
    names = public_names(release.statement, "org/tiny")
    write_export(tmp_path / "out", release, replace(SETTINGS, renamed=True), names=names)
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert MODEL_FOLDER.encode() not in path.read_bytes(), path
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert set(pl.read_parquet(tmp_path / "out/data/annotated/*.parquet")["annotator"]) == {"org/tiny"}
    assert stored_charge_ids(tmp_path / "out/models/sft") == IDS
    adapter = read_artifact(tmp_path / "out/models/sft")
    assert adapter.base_model == adapter.config["base_model_name_or_path"] == "org/tiny"  # type: ignore[union-attr]
    assert np.array_equal(adapter.weights["w"], np.ones((2, 3)))  # type: ignore[union-attr]


def wrong_with(folder: Path) -> str:
    """What `verify` finds wrong with an export."""
    return "; ".join(checked_statement(folder / "privacy_statement/document.json").wrong)


def test_every_file_of_an_export_is_named_by_its_statement_and_a_change_of_any_is_found(exported: Path) -> None:
    assert wrong_with(exported) == ""
    for path in (path for path in exported.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"a", b"e", 1))
        with contextlib.suppress(StatementError):  # the document itself may not even be one any more
            assert path == exported / "privacy_statement/document.json" or wrong_with(exported), path
        path.unlink()
        if path.parent.name != "privacy_statement" and path.name != "SHA256SUMS":
            assert f"{path.relative_to(exported)} is missing" in wrong_with(exported)
        path.write_bytes(content)
    assert wrong_with(exported) == ""


@pytest.mark.parametrize(
    "place", ["notes.txt", "models/sft/more.bin", "data/extra/train.parquet", "privacy_statement/a.pdf"]
)
def test_a_file_beside_those_of_an_export_is_found(exported: Path, place: str) -> None:
    (exported / place).parent.mkdir(exist_ok=True)
    (exported / place).write_text("epsilon 0.05")
    assert f"{place} is not named by the statement" in wrong_with(exported)


def test_an_export_whose_statement_names_only_some_of_its_files_is_found(exported: Path) -> None:
    folder = exported / "privacy_statement"
    statement = statement_in(exported)
    kept = {place: digest for place, digest in statement["files"].items() if "/" in place}
    shutil.rmtree(folder)
    folder.mkdir()
    forged = restated(statement, files=kept)
    write_artifact(folder, Document(forged, to_markdown(forged), IDS, to_html(forged)))
    assert "README.md is not named by the statement" in wrong_with(exported)


def test_pages_in_an_export_are_compared_with_a_statement_that_came_another_way(exported: Path, tmp_path: Path) -> None:
    copied = shutil.copy(exported / "privacy_statement/document.json", tmp_path)
    assert checked_statement(Path(copied), exported).wrong == []
    page = exported / "privacy_statement/document.md"
    page.write_text(page.read_text().replace("epsilon 7", "epsilon 0"))
    assert (
        "page document.md: it does not say what the statement says" in checked_statement(Path(copied), exported).wrong
    )


def test_a_link_in_an_export_is_found(exported: Path, tmp_path: Path) -> None:
    (exported / "models/sft").rename(tmp_path / "sft")
    (exported / "models/sft").symlink_to(tmp_path / "sft")
    assert "models/sft is not named by the statement" in wrong_with(exported)


def test_a_statement_that_is_copied_out_of_an_export_says_that_no_file_was_checked(
    exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail/other.txt").touch()
    copied = shutil.copy(exported / "privacy_statement/document.json", tmp_path / "mail")
    found = {one.check: one.outcome for one in checked_statement(Path(copied)).findings}
    assert found["files of the export"] == "not checked"


def test_a_statement_with_public_names_verifies_and_has_the_same_figures(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data", base_model=MODEL_FOLDER), "pool")
    write_export(tmp_path / "out", release, SETTINGS, names=public_names(release.statement, "org/tiny"))
    statement = statement_in(tmp_path / "out")
    verify(statement)
    assert statement["base_model"] == "org/tiny"
    assert statement["guarantee"] == release.statement["guarantee"]
    assert "org/tiny" in (tmp_path / "out/privacy_statement/document.html").read_text()


def test_a_column_whose_name_could_be_markup_in_the_card_is_refused(tmp_path: Path) -> None:
    state = release_everything(tmp_path / "data")
    shutil.rmtree(next((tmp_path / "data").rglob("synthetic_pool/all/eps-8")))
    rows = pl.LazyFrame({"synthetic_id": ["a"], "text` |\n\n## The guarantee": ["b"]})
    put(tmp_path / "data", "synthetic_pool", Table(rows, IDS[:1]))
    with pytest.raises(ExportRefused, match="synthetic_pool has a column whose name") as refused:
        write_export(tmp_path / "out", gathered(tmp_path / "data", state), SETTINGS, names={})
    assert "guarantee" not in str(refused.value)


def test_an_export_that_fails_leaves_no_folder_or_the_earlier_one(tmp_path: Path, exported: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"))
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    for target in (exported, tmp_path / "new"):
        with pytest.raises(OSError, match="no space"):
            write_export(target, release, SETTINGS, names={}, merge=fail)
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_an_artifact_that_is_made_anew_meanwhile_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"), "pool")
    write = writing._write_statement

    def meanwhile(*arguments: Any) -> None:
        put(tmp_path / "data", "synthetic_pool", Table(pl.LazyFrame({"text": ["new"]}), IDS[:1]))
        write(*arguments)

    monkeypatch.setattr(writing, "_write_statement", meanwhile)
    with pytest.raises(ExportRefused, match="replaced an artifact"):
        write_export(tmp_path / "out", release, SETTINGS, names={})
    assert not (tmp_path / "out").exists()


def test_the_same_release_makes_the_same_bytes(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"))
    folders = (tmp_path / "out", tmp_path / "again")
    for folder in folders:
        write_export(folder, release, SETTINGS, names={})
    sums = [(folder / "SHA256SUMS").read_text() for folder in folders]
    assert sums[0] == sums[1]


def test_what_lies_beside_an_artifact_stays_there(tmp_path: Path) -> None:
    state = release_everything(tmp_path / "data")
    release = gathered(tmp_path / "data", state)
    for folder in release.found:
        (folder / "notes.txt").write_text("not released")
    write_export(tmp_path / "out", gathered(tmp_path / "data", state), SETTINGS, names={})
    assert not list((tmp_path / "out").rglob("notes.txt"))


def test_every_part_is_exported_by_its_name(exported: Path) -> None:
    places = {path.name for kind in ("data", "models") for path in (exported / kind).iterdir()}
    assert places | {"quality"} == {part.name for part in chosen_parts([])}
    assert (exported / "quality_report/document.md").is_file()
