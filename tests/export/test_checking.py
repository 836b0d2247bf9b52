"""An export that somebody edited, with every hash made anew, is refused: what it says follows from the statement."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import Document
from dp_assets.cli.statements import checked_statement
from dp_assets.export.folder import write_export
from dp_assets.export.target import CHECKSUMS, write_checksums
from dp_assets.privacy.plan import GENERATOR
from dp_assets.statements.statement import restated
from dp_assets.statements.statement_pages import to_html, to_markdown
from resources.storage.artifact_files import PROVENANCE, write_artifact
from resources.storage.digests import file_digests
from tests.export.releases import IDS, SETTINGS, gathered, release_everything

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of everything."""
    home = tmp_path_factory.mktemp("export")
    write_export(home / "out", gathered(home / "data", release_everything(home / "data")), SETTINGS, names={})
    return home / "out"


@pytest.fixture
def exported(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "out"))


def sealed_anew(folder: Path, **changed: Any) -> None:
    """Make the statement, its pages and the checksums fit the files, as a forger would."""
    place = folder / "privacy_statement"
    statement = json.loads((place / "document.json").read_text())["data"]
    shutil.rmtree(place)
    (folder / CHECKSUMS).unlink()
    statement = restated(statement, **{"files": file_digests(folder, below=folder), **changed})
    place.mkdir()
    ids = tuple(statement["ledger"]["charge_ids"])
    write_artifact(place, Document(statement, to_markdown(statement), ids, to_html(statement)))
    write_checksums(folder)


def wrong(folder: Path) -> str:
    return "; ".join(checked_statement(folder / "privacy_statement/document.json").wrong)


def edited_json(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")

    return edit


def with_charges(name: str, ids: tuple[str, ...]) -> Edit:
    """A table whose shards say that they descend from these."""
    return with_provenance(name, json.dumps({"charge_ids": ids, "record": {}}))


def with_provenance(name: str, provenance: str) -> Edit:
    """A table whose shards say this of where they come from."""

    def edit(folder: Path) -> None:
        (shard,) = (folder / "data" / name).glob("*.parquet")
        pl.read_parquet(shard).write_parquet(shard, metadata={PROVENANCE: provenance})

    return edit


def replaced(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def added(name: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / name).open("a") as stream:
            stream.write(text)

    return edit


def said(change: Callable[[dict[str, Any]], object]) -> Edit:
    """A change of the manifest."""
    return edited_json("export.json", change)


def charges(name: str, change: Callable[[list[str]], object]) -> Edit:
    """A change of the charges of a model or a report."""
    return edited_json(name, lambda form: change(form["charge_ids"]))


MODEL, REPORT = "models/sft/provenance.json", "quality_report/document.json"
CONFIG = "models/sft/adapter_config.json"
EDITS: dict[str, Edit] = {
    "a card with a smaller epsilon": replaced("README.md", "epsilon 7.99", "epsilon 0.99"),
    "a card with one more sentence": added("README.md", "\nIn fact epsilon is 0.05.\n"),
    "a card with another title": replaced("README.md", "level eps-8", "level eps-1"),
    "a model card with a smaller epsilon": replaced("models/sft/README.md", "epsilon 7.99", "epsilon 0.99"),
    "a card of another unit": replaced("README.md", "Unit: ", "Unit: household, "),
    "a card that is missing": lambda folder: (folder / "models/rlhf/README.md").unlink(),
    "a manifest that is missing": lambda folder: (folder / "export.json").unlink(),
    "a manifest that is no JSON": lambda folder: (folder / "export.json").write_text("{"),
    "a manifest with a smaller epsilon": said(lambda form: form["together"].update(lineage_epsilon=0.1)),
    "a manifest with a smaller headline": said(
        lambda form: form["together"]["cohorts"][0].update(headline_epsilon=0.1)
    ),
    "a manifest of another partition": said(lambda form: form.update(partition="all|eps-1")),
    "a manifest with fewer charges": said(lambda form: form["together"].update(charge_ids=[])),
    "a manifest with another part": said(lambda form: form["parts"]["pool"].update(charge_ids=[])),
    "a manifest with a note": said(lambda form: form.update(note="epsilon 0.05")),
    "a manifest with a note for cards": said(lambda form: form["card"].update(note="epsilon 0.05")),
    "a licence that is a sentence": said(lambda form: form["card"].update(license_id="epsilon 0.05")),
    "a manifest with more rows": said(lambda form: form["parts"]["pool"].update(rows=9_999)),
    "a table of a charge that nobody knows": with_charges("pool", ("another", GENERATOR)),
    "a table of fewer charges": with_charges("filtered", IDS[:1]),
    "a table without charges": with_charges("pool", ()),
    "a model of a charge that nobody knows": charges(MODEL, lambda ids: ids.append("x")),
    "a model of fewer charges": charges(MODEL, lambda ids: ids.pop()),
    "a report of a charge that nobody knows": charges(REPORT, lambda ids: ids.append("x")),
    "a report of fewer charges": charges(REPORT, lambda ids: ids.pop()),
    "a text beside the card": added("EPSILON.md", "epsilon 0.05"),
    "a text beside a table": added("data/pool/README.md", "epsilon 0.05"),
    "a part that there is not": added("models/another/README.md", "epsilon 0.05"),
    "a configuration of another base model": edited_json(CONFIG, lambda form: form.update(base_model_name_or_path="x")),
    "a configuration with a note": edited_json(CONFIG, lambda form: form.update(epsilon=0.05)),
    "a configuration that says something twice": replaced(CONFIG, "{", '{"peft_type": "IA3",'),
    "a provenance of another base model": edited_json(MODEL, lambda form: form.update(base_model="x")),
    "a provenance with a note": edited_json(MODEL, lambda form: form.update(epsilon=0.05)),
    "a provenance that says something twice": replaced(MODEL, "{", '{"charge_ids": [],'),
    "a report that says something twice": replaced(REPORT, "{", '{"charge_ids": [],'),
    "a report with a note": edited_json(REPORT, lambda form: form.update(epsilon=0.05)),
    "a model without its weights": lambda folder: (folder / "models/sft/adapter_model.safetensors").unlink(),
    "a provenance that is nested deeply": lambda folder: (folder / MODEL).write_text("[" * 100_000),
    "a report that is nested deeply": lambda folder: (folder / REPORT).write_text(
        '{"charge_ids": [], "data": ' + "[" * 100_000
    ),
    "a table whose charges are nested deeply": with_provenance("pool", "[" * 100_000),
}


def test_an_honest_export_agrees_and_so_does_one_that_was_sealed_again(exported: Path) -> None:
    assert wrong(exported) == ""
    sealed_anew(exported)
    assert wrong(exported) == ""


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_export_with_hashes_that_fit_is_refused(exported: Path, name: str) -> None:
    (exported / "models/another").mkdir()
    EDITS[name](exported)
    sealed_anew(exported)
    assert wrong(exported)


def test_an_export_is_one_though_its_manifest_is_neither_there_nor_named(exported: Path) -> None:
    (exported / "export.json").unlink()
    (exported / "README.md").unlink()
    sealed_anew(exported)
    assert wrong(exported)


def test_a_statement_of_an_export_that_names_no_file_is_refused(exported: Path) -> None:
    sealed_anew(exported, files={})
    assert "not named by the statement" in wrong(exported)


def test_a_statement_of_fewer_charges_than_its_export_is_refused(exported: Path) -> None:
    statement = json.loads((exported / "privacy_statement/document.json").read_text())["data"]
    charges = [charge for charge in statement["charges"] if charge["mechanism"] == GENERATOR]
    evidence = {charge["charge_id"]: statement["evidence"][charge["charge_id"]] for charge in charges}
    sealed_anew(exported, charges=charges, evidence=evidence)
    assert wrong(exported)


def exported_with(folder: Path, *only: str, merged: Sequence[str]) -> Path:
    """An export of these parts, each model of which was merged to files of these names."""
    release = gathered(folder / "data", release_everything(folder / "data"), *only)

    def merge(_: object, __: Path, target: Path) -> None:
        for name in ("config.json", *merged):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text("epsilon 0.05")

    write_export(folder / "out", release, SETTINGS, names={}, merge=merge)
    return folder / "out"


@pytest.mark.parametrize("name", ["sft", "generator", "another", "pool"])
def test_a_merged_model_that_is_none_of_the_export_is_refused(tmp_path: Path, name: str) -> None:
    folder = exported_with(tmp_path, "pool", merged=())
    (folder / "merged" / name).mkdir(parents=True)
    (folder / "merged" / name / "README.md").write_text("epsilon 0.05")
    sealed_anew(folder)
    assert f"merged/{name}" in wrong(folder)


@pytest.mark.parametrize(
    "name", ["GUARANTEE.md", "index.html", "sub/config.json", "modeling_x.py", "model.safetensors.html"]
)
def test_a_file_that_is_none_of_a_merged_model_is_refused(tmp_path: Path, name: str) -> None:
    folder = exported_with(tmp_path, "sft", merged=[name])
    assert f"merged/sft/{name} is not a file of an export" in wrong(folder)


def test_a_merged_model_of_the_files_that_transformers_writes_agrees(tmp_path: Path) -> None:
    written = ("tokenizer.json", "chat_template.jinja", "model-00001-of-00002.safetensors")
    assert wrong(exported_with(tmp_path, "sft", merged=written)) == ""


@pytest.mark.parametrize(
    "place", ["privacy_statement", "privacy_statement/now", "statement", "privacy_statement/all/eps-8"]
)
@pytest.mark.parametrize("manifest", ["there", "gone", "a dangling link"])
def test_a_false_card_is_refused_wherever_its_statement_was_moved(exported: Path, place: str, manifest: str) -> None:
    sealed_anew(exported, files={})
    (exported / "README.md").write_text("epsilon 0.05")
    if manifest != "there":
        (exported / "export.json").unlink()
    if manifest == "a dangling link":
        (exported / "export.json").symlink_to(exported.parent / "nowhere")
    (exported / "privacy_statement").rename(exported.parent / "moved")
    (exported / place).parent.mkdir(parents=True, exist_ok=True)
    (exported.parent / "moved").rename(exported / place)
    assert checked_statement(exported / place / "document.json").wrong


@pytest.mark.parametrize(
    "name",
    ["export.json", "README.md", "SHA256SUMS", "privacy_statement/document.md", "privacy_statement/document.html"],
)
@pytest.mark.parametrize("form", ["missing", "link", "pipe", "folder"])
def test_an_export_needs_its_manifest_card_checksums_and_pages_as_plain_files(
    exported: Path, name: str, form: str
) -> None:
    (exported / name).rename(exported.parent / "moved")
    if form == "link":
        (exported / name).symlink_to(exported.parent / "moved")
    elif form == "pipe":
        os.mkfifo(exported / name)
    elif form == "folder":
        (exported / name).mkdir()
    assert wrong(exported)


def test_files_that_a_desktop_leaves_beside_a_shard_are_neither_counted_nor_read(exported: Path) -> None:
    (exported / "data/pool/._train-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7" + b"\0" * 200)
    assert wrong(exported) == ""
    shutil.copy(next((exported / "data/pool").glob("train-*.parquet")), exported / "data/pool/._x.parquet")
    assert wrong(exported) == ""
