"""The files beside a statement: those that it names, others, changed ones, and links."""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import Table
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.statements.statement import restated
from resources.storage.digests import file_digests
from tests.cli.released_statements import ARTIFACTS, PLACE, document_of, findings, invoke, stored, write_statement


def test_an_artifact_that_descends_from_other_charges_than_the_statement_is_found(released: Path) -> None:
    place = ARTIFACTS[0]
    shutil.rmtree(released / place)
    stored(released / place, Table(pl.LazyFrame({"number": [0]}), ("charge of another run",)))
    files = file_digests(released / place, below=released)
    statement = json.loads(document_of(released).read_text())["data"]
    kept = {name: value for name, value in statement["files"].items() if not name.startswith(place)}
    shutil.rmtree(document_of(released).parent)
    write_statement(document_of(released).parent, restated(statement, files=kept | files))
    assert findings(document_of(released))[f"files of {place}"] == "differs"


def test_an_artifact_that_was_changed_is_found_and_a_missing_one_is_not_checked(released: Path) -> None:
    changed, missing = ARTIFACTS
    (shard,) = (released / changed).glob("part-*.parquet")
    shard.write_bytes(b"other rows")
    shutil.rmtree(released / missing)
    found = findings(document_of(released))
    assert (found[f"files of {changed}"], found[f"files of {missing}"]) == ("differs", "not checked")
    assert invoke("verify", str(document_of(released))).exit_code == 1
    shutil.rmtree(released / changed)
    assert invoke("verify", str(document_of(released))).exit_code == 0


def test_a_copied_statement_finds_its_artifacts_where_it_is_told(released: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "document.json"
    alone.parent.mkdir()
    shutil.copy(document_of(released), alone)
    assert {findings(alone)[f"files of {place}"] for place in ARTIFACTS} == {"not checked"}
    told = findings(alone, "--artifacts", str(released))
    assert {told[f"files of {place}"] for place in ARTIFACTS} == {"agrees"}


def test_a_file_that_the_statement_does_not_name_is_found(released: Path) -> None:
    named, other = ARTIFACTS
    (released / named / "more.parquet").write_bytes(b"rows")
    (released / other / ".DS_Store").write_bytes(b"left behind by a desktop")
    found = findings(document_of(released))
    assert (found[f"files of {named}"], found[f"files of {other}"]) == ("differs", "agrees")


@pytest.mark.parametrize("name", [".huggingface.yaml", ".more/rows.parquet", ".more/.DS_Store", ".DS_Store.parquet"])
def test_a_hidden_file_that_the_statement_does_not_name_is_found(released: Path, name: str) -> None:
    file = released / ARTIFACTS[0] / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"rows")
    assert findings(document_of(released))[f"files of {ARTIFACTS[0]}"] == "differs"


@pytest.mark.parametrize("name", [".DS_Store", "._part.parquet", ".directory", ".gitattributes"])
def test_what_desktops_and_git_leave_behind_is_no_difference(released: Path, name: str) -> None:
    (released / ARTIFACTS[0] / name).write_bytes(b"left behind")
    assert findings(document_of(released))[f"files of {ARTIFACTS[0]}"] == "agrees"


def test_a_manifest_beside_a_partitions_statement_is_refused_with_it(released: Path) -> None:
    (released / "privacy_statement/all/export.json").write_text("{}")
    assert findings(document_of(released))["files of the export"] == "differs"


def test_a_file_that_is_a_link_is_refused_even_to_the_same_content(released: Path, tmp_path: Path) -> None:
    (shard,) = (released / ARTIFACTS[0]).glob("part-*.parquet")
    shard.rename(tmp_path / shard.name)
    shard.symlink_to(tmp_path / shard.name)
    assert findings(document_of(released))[f"files of {ARTIFACTS[0]}"] == "differs"


def test_a_statement_that_names_no_file_says_that_none_was_checked(released: Path) -> None:
    statement = json.loads(document_of(released).read_text())["data"]
    shutil.rmtree(document_of(released).parent)
    write_statement(document_of(released).parent, restated(statement, files={}))
    found = findings(document_of(released))
    assert {found["files"], *(found[f"files of {place}"] for place in ARTIFACTS)} == {"not checked"}


def test_a_folder_with_a_file_that_never_ends_does_not_hold_verify_up(released: Path) -> None:
    folder = released / f"sft_model/{PLACE}"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "provenance.json")
    assert findings(document_of(released))[f"files of sft_model/{PLACE}"] == "differs"


def test_an_artifact_made_after_the_statement_is_said_to_be_unchecked(released: Path) -> None:
    stored(released / f"sft_model/{PLACE}", Table(pl.LazyFrame({"number": [1]}), (GENERATOR, HISTOGRAM)))
    stored(released / f"rlhf_model/{PLACE}", Table(pl.LazyFrame({"number": [1]}), ("charge of another run",)))
    found = findings(document_of(released))
    assert (found[f"files of sft_model/{PLACE}"], found[f"files of rlhf_model/{PLACE}"]) == ("not checked", "differs")


def test_an_artifact_that_names_fewer_charges_than_the_graph_has_above_it_is_found(released: Path) -> None:
    stored(released / f"sft_model/{PLACE}", Table(pl.LazyFrame({"number": [1]}), (GENERATOR,)))
    assert findings(document_of(released))[f"files of sft_model/{PLACE}"] == "differs"


def test_a_folder_that_holds_no_artifact_is_said_to_be_none(released: Path) -> None:
    for name, file in (("[red]pool", "part-0-x.parquet"), ("sft_model", "provenance.json")):
        folder = released / name / PLACE
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"[1]")
    found = findings(document_of(released))
    assert {found[f"files of {name}/{PLACE}"] for name in ("[red]pool", "sft_model")} == {"differs"}
    assert "[red]pool" in " ".join(invoke("verify", str(document_of(released))).stdout.split())
