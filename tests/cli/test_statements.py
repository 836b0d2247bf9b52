"""`verify` and `lineage` on folders that lie where the pipeline puts them, and on copies of them elsewhere."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from dp_assets.artifacts import Document, PrivateTable, Table
from dp_assets.cli import app
from dp_assets.cli._stated_profile import profile_finding
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.named import DEMO, PAPER
from dp_assets.stages.statement import public_settings
from dp_assets.statements.statement import restated, sealed
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import PROVES, Outcome
from resources.ledger.charging import Ledger
from resources.storage.artifact_files import write_artifact
from resources.storage.digests import code_digest, file_digests
from resources.storage.zones import HOME_VARIABLE
from tests.privacy.plans import small_plan, small_terms
from tests.statements.statements import PLAN, both, state_of, statement_of

PLACE = "all/eps-8"
ARTIFACTS = (f"dp_generator/{PLACE}", f"dp_histogram/{PLACE}")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def stored(folder: Path, artifact: Table | Document | PrivateTable) -> Path:
    folder.mkdir(parents=True)
    write_artifact(folder, artifact)
    return folder


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `artifacts` of a released zone: two artifacts and the statement made from them. There is no ledger."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "no home"))
    root = tmp_path / "released/artifacts"
    for number, place in enumerate(ARTIFACTS):
        stored(root / place, Table(pl.LazyFrame({"number": [number]}), (GENERATOR, HISTOGRAM)[: number + 1]))
    files = {name: value for place in ARTIFACTS for name, value in file_digests(root / place, below=root).items()}
    statement = restated(statement_of(state_of(*both())), files=files, code=code_digest())
    write_statement(root / "privacy_statement" / PLACE, statement)
    return root


def write_statement(folder: Path, statement: dict[str, Any]) -> Path:
    ids = tuple(statement["ledger"]["charge_ids"])
    stored(folder, Document(statement, to_markdown(statement), ids, to_html(statement)))
    return folder / "document.json"


def document_of(released: Path) -> Path:
    return released / "privacy_statement" / PLACE / "document.json"


def findings(document: Path, *arguments: str) -> dict[str, str]:
    """What `verify --json` found, by check."""
    answer = json.loads(invoke("verify", str(document), "--json", *arguments).stdout)
    return {one["check"]: one["outcome"] for one in answer["findings"]}


def edit(document: Path, change: Callable[[dict[str, Any]], None], *, reseal: bool = False) -> None:
    content = json.loads(document.read_text())
    change(content["data"])
    content["data"] = sealed(content["data"]) if reseal else content["data"]
    document.write_text(json.dumps(content))


def test_a_statement_verifies_offline_with_its_pages_its_artifacts_and_its_code(released: Path) -> None:
    result = invoke("verify", str(document_of(released)), "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert answer["verified"]
    assert {one["outcome"] for one in answer["findings"]} == {"agrees"}
    checked = {one["check"] for one in answer["findings"]}
    assert {"figures", "digest", "code", "page document.md", "page document.html"} <= checked
    assert {f"files of {place}" for place in ARTIFACTS} <= checked
    assert not (released.parents[1] / "no home").exists()


def test_the_command_says_what_it_does_not_prove(released: Path) -> None:
    shown = " ".join(invoke("verify", str(document_of(released))).stdout.split())
    assert PROVES in shown
    assert "does not prove that these events are the ones which ran" in shown
    assert json.loads(invoke("verify", str(document_of(released)), "--json").stdout)["proves"] == PROVES


def test_an_edited_figure_ends_with_1_and_is_named(released: Path) -> None:
    edit(document_of(released), lambda data: data["guarantee"].update(cohort_epsilon=0.5), reseal=True)
    refused = invoke("verify", str(document_of(released)))
    assert refused.exit_code == 1
    assert "guarantee.cohort_epsilon" in refused.stderr


def test_an_edit_that_carries_no_figure_is_found_by_the_digest(released: Path) -> None:
    edit(document_of(released), lambda data: data.update(base_model="another"))
    refused = invoke("verify", str(document_of(released)))
    assert refused.exit_code == 1
    assert "digest" in refused.stderr


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


@pytest.mark.parametrize("page", ["document.md", "document.html"])
def test_a_page_that_says_something_else_is_found(released: Path, page: str) -> None:
    file = document_of(released).with_name(page)
    file.write_text(file.read_text().replace("7.99", "0.99"))
    assert invoke("verify", str(document_of(released))).exit_code == 1
    assert findings(document_of(released))[f"page {page}"] == "differs"


def test_charge_ids_beside_the_statement_are_compared(released: Path) -> None:
    content = json.loads(document_of(released).read_text())
    document_of(released).write_text(json.dumps(content | {"charge_ids": [GENERATOR]}))
    assert findings(document_of(released))["charge_ids"] == "differs"


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


def test_other_code_is_a_note_and_the_pages_are_compared_all_the_same(released: Path) -> None:
    statement = json.loads(document_of(released).read_text())["data"]
    shutil.rmtree(document_of(released).parent)
    other = restated(statement, code=statement["code"] | {"sha256": "0" * 64})
    write_statement(document_of(released).parent, other)
    found = findings(document_of(released))
    assert (found["code"], found["page document.md"], found["figures"]) == ("note", "agrees", "agrees")
    page = document_of(released).with_name("document.md")
    page.write_text(page.read_text().replace("7.99", "0.99"))
    assert findings(document_of(released))["page document.md"] == "differs"


def test_what_is_shown_is_what_was_recomputed(released: Path) -> None:
    answer = json.loads(invoke("verify", str(document_of(released)), "--json").stdout)
    assert answer["figures"]["headline_epsilon"] == PLAN.epsilon
    edit(document_of(released), lambda data: data["guarantee"].update(headline_epsilon=0.05), reseal=True)
    refused = invoke("verify", str(document_of(released)))
    assert "0.05" not in refused.stdout
    assert json.loads(invoke("verify", str(document_of(released)), "--json").stdout)["figures"] is None


@pytest.mark.parametrize("page", ["document.md", "document.html"])
def test_a_page_that_is_a_link_is_refused(released: Path, tmp_path: Path, page: str) -> None:
    file = document_of(released).with_name(page)
    file.rename(tmp_path / page)
    file.symlink_to(tmp_path / page)
    assert findings(document_of(released))[f"page {page}"] == "differs"


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


def test_a_manifest_beside_a_partitions_statement_turns_no_check_off(released: Path) -> None:
    (released / "privacy_statement/all/export.json").write_text("{}")
    assert set(findings(document_of(released)).values()) == {"agrees"}
    (shard,) = (released / ARTIFACTS[0]).glob("part-*.parquet")
    shard.write_bytes(b"other rows")
    moved = released / "privacy_statement/all/eps-1"
    document_of(released).parent.rename(moved)
    found = findings(moved / "document.json")
    assert (found["place"], found[f"files of {ARTIFACTS[0]}"]) == ("differs", "differs")


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


def test_a_document_beside_a_statement_of_another_name_must_be_a_copy_of_it(released: Path) -> None:
    statement = document_of(released).with_name("statement.json")
    shutil.copy(document_of(released), statement)
    assert findings(statement)["page document.json"] == "agrees"
    edit(document_of(released), lambda data: data["guarantee"].update(cohort_epsilon=0.5), reseal=True)
    assert findings(statement)["page document.json"] == "differs"


@pytest.mark.parametrize("letter", ["\x9b", "\u202e", "\u2066", "\u200b", "\x7f"])
def test_json_shows_no_letter_that_moves_the_terminal_or_turns_text_around(released: Path, letter: str) -> None:
    edit(document_of(released), lambda data: data["guarantee"].update({f"x{letter}2J": 0.05}), reseal=True)
    shown = invoke("verify", str(document_of(released)), "--json").stdout
    assert letter not in shown
    assert f"guarantee.x{letter}2J" in " ".join(one["detail"] for one in json.loads(shown)["findings"])


@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        (None, "epsilon", 0.05),
        (None, "annotation", "epsilon 0.05"),
        ("corpus", "note", "certified at epsilon 0.05"),
        ("corpus", "cohorts", {"kind": "all", "note": "epsilon 0.05"}),
        ("corpus", "planned_levels", {"epsilon": 0.05}),
        ("corpus", "budget_epsilon", "0.05"),
        ("generator", "guarantee", {"epsilon": 0.05}),
    ],
)
def test_a_profile_with_what_is_no_setting_is_refused(
    released: Path, group: str | None, setting: str, value: object
) -> None:
    statement = json.loads(document_of(released).read_text())["data"]
    configuration = statement["configuration"]
    settings = configuration["profile"] if group is None else configuration["profile"][group]
    settings[setting] = value
    shutil.rmtree(document_of(released).parent)
    write_statement(document_of(released).parent, restated(statement, configuration=configuration))
    assert findings(document_of(released))["profile"] == "differs"


def test_the_public_settings_of_every_shipped_profile_are_settings_of_a_profile() -> None:
    for profile in (DEMO, PAPER):
        assert profile_finding(json.loads(json.dumps(public_settings(profile)))).outcome is Outcome.AGREES


def test_a_statement_in_the_place_of_another_partition_is_refused(released: Path) -> None:
    moved = released / "privacy_statement/all/eps-1"
    document_of(released).parent.rename(moved)
    assert findings(moved / "document.json")["place"] == "differs"


def test_a_statement_copied_to_any_folder_is_in_the_place_of_no_partition(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads/this month/today"
    shutil.copytree(document_of(released).parent, folder)
    (folder.parents[1] / "another/today").mkdir(parents=True)
    assert "differs" not in findings(folder / "document.json").values()


def test_a_folder_that_holds_no_artifact_is_said_to_be_none(released: Path) -> None:
    for name, file in (("[red]pool", "part-0-x.parquet"), ("sft_model", "provenance.json")):
        folder = released / name / PLACE
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"[1]")
    found = findings(document_of(released))
    assert {found[f"files of {name}/{PLACE}"] for name in ("[red]pool", "sft_model")} == {"differs"}
    assert "[red]pool" in " ".join(invoke("verify", str(document_of(released))).stdout.split())


def test_a_statement_is_found_under_every_spelling_of_its_path(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(document_of(released).parent)
    for path in ("document.json", "../eps-8/document.json"):
        assert set(findings(Path(path)).values()) == {"agrees"}


def test_a_ledger_that_comes_with_somebodys_statement_is_not_opened(released: Path) -> None:
    ledger = released.parents[1] / "private/ledger/ledger.duckdb"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(b"hostile")
    assert not any(check.startswith("ledger") for check in findings(document_of(released)))


def test_a_hostile_name_neither_marks_up_nor_moves_the_terminal(released: Path) -> None:
    edit(document_of(released), lambda data: data["guarantee"].update({"[red]\x1b[2J\u202e": 0.05}), reseal=True)
    refused = invoke("verify", str(document_of(released)))
    assert refused.exit_code == 1
    assert "\x1b[2J" not in refused.stdout + refused.stderr
    assert "\u202e" not in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", '{"data": {}, "charge_ids": []}', '{"data": 3, "charge_ids": []}']
)
def test_a_file_that_is_no_statement_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "document.json").write_text(content)
    result = invoke("verify", str(tmp_path / "document.json"))
    assert result.exit_code == 1
    assert "privacy statement" in result.stderr


class Shelf:
    """A ledger in which both mechanisms of a plan were charged, and released folders that descend from them."""

    def __init__(self, home: Path) -> None:
        self.home, self.folders = home, home / "copied elsewhere"
        self.ledger = Ledger(private_root=str(home / Zone.PRIVATE))
        terms = replace(small_terms(), is_public=True)
        self.corpus_id = self.ledger.register(locator="file", terms=terms, plans=[PLAN]).corpus_id
        self.ids = {mechanism: self.charge(mechanism) for mechanism in (GENERATOR, HISTOGRAM)}

    def charge(self, mechanism: str, level: str = "eps-8") -> str:
        plan = PLAN if level == PLAN.level else small_plan(level)
        names = {"corpus_id": self.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": mechanism + level}
        return self.ledger.charge(plan=plan, mechanism=mechanism, **names).charge_id

    def table(self, name: str, *ids: str) -> str:
        return str(stored(self.folders / name, Table(pl.LazyFrame({"number": [1]}), ids)))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    return Shelf(tmp_path)


class Raised:
    """A statement beside the ledger from which it was made."""

    def __init__(self, home: Path) -> None:
        self.shelf = Shelf(home)
        state = self.shelf.ledger.state()
        statement = statement_of(
            state, corpus=state.registrations[self.shelf.corpus_id], charge_ids=list(self.shelf.ids.values())
        )
        self.document = write_statement(home.parent / "elsewhere", statement)

    def found(self, *arguments: str) -> dict[str, str]:
        found = findings(self.document, *arguments)
        return {check: outcome for check, outcome in found.items() if check.startswith("ledger")}


@pytest.fixture
def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Raised:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return Raised(tmp_path / "home")


def test_a_statement_whose_budget_was_raised_since_is_said_to_be_untrue_now(raised: Raised, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home"))
    assert raised.found(*home) == {"ledger when it was made": "agrees", "ledger now": "agrees"}
    invoke("ledger", "raise", raised.shelf.corpus_id, "12", "--reason", "more runs")
    assert raised.found(*home) == {"ledger when it was made": "agrees", "ledger now": "differs"}
    refused = invoke("verify", str(raised.document), *home)
    assert refused.exit_code == 1
    assert "the budget of each cohort is epsilon 12, and not 8" in refused.stderr
    assert raised.found() == {}


def test_a_statement_that_lies_in_its_data_folder_is_compared_with_the_ledger_there(
    raised: Raised, tmp_path: Path
) -> None:
    place = tmp_path / "home/released/artifacts/privacy_statement" / PLACE
    place.parent.mkdir(parents=True)
    raised.document.parent.rename(place)
    raised.document = place / "document.json"
    assert raised.found()["ledger now"] == "agrees"
    invoke("ledger", "raise", raised.shelf.corpus_id, "12", "--reason", "more runs")
    assert raised.found()["ledger now"] == "differs"


def test_a_statement_that_its_ledger_does_not_bear_out_is_found(raised: Raised, tmp_path: Path) -> None:
    statement = json.loads(raised.document.read_text())["data"]
    budget = {"epsilon": 9.0, "raised": []}
    document = write_statement(tmp_path / "forged", restated(statement, budget=budget))
    raised.document = document
    assert raised.found("--home", str(tmp_path / "home")) == {
        "ledger when it was made": "differs",
        "ledger now": "differs",
    }


def test_a_source_that_is_said_to_be_registered_otherwise_is_found(raised: Raised, tmp_path: Path) -> None:
    statement = json.loads(raised.document.read_text())["data"]
    source = statement["source"] | {"declared_public": not statement["source"]["declared_public"]}
    raised.document = write_statement(tmp_path / "forged", restated(statement, source=source))
    assert set(raised.found("--home", str(tmp_path / "home")).values()) == {"differs"}
    assert (
        "the source is registered as" in invoke("verify", str(raised.document), "--home", str(tmp_path / "home")).stderr
    )


def test_the_own_ledger_is_compared_with_under_every_spelling_of_the_data_folder(
    raised: Raised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, link = tmp_path / "home", tmp_path / "link"
    shutil.copytree(raised.document.parent, home / "kept")
    link.symlink_to(home)
    for named, spelled in ((home, link), (link, home), (link, link)):
        monkeypatch.setenv(HOME_VARIABLE, str(named))
        raised.document = spelled / "kept/document.json"
        assert set(raised.found()) == {"ledger when it was made", "ledger now"}


def test_a_statement_beside_another_ledger_or_none_is_refused(raised: Raised, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert "no ledger" in invoke("verify", str(raised.document), "--home", str(tmp_path / "other")).stderr
    Shelf(tmp_path / "other")
    assert raised.found("--home", str(tmp_path / "other")) == {"ledger when it was made": "differs"}


def test_lineage_states_each_artifact_and_all_of_them_together(shelf: Shelf) -> None:
    generator, histogram = shelf.ids.values()
    paths = [shelf.table("one", generator), shelf.table("two", histogram), shelf.table("three", generator, histogram)]
    answer = json.loads(invoke("lineage", *paths[:2], "--json").stdout)
    alone = [row["lineage_epsilon"] for row in answer["artifacts"]]
    assert [row["charge_ids"] for row in answer["artifacts"]] == [[generator], [histogram]]
    assert max(alone) < answer["together"]["lineage_epsilon"] == PLAN.epsilon < sum(alone)
    (cohort,) = answer["together"]["cohorts"]
    assert (cohort["headline_epsilon"], cohort["budget_epsilon"]) == (PLAN.epsilon, 8.0)
    again = json.loads(invoke("lineage", *paths, "--json").stdout)["together"]
    assert again == answer["together"]


def test_lineage_shows_a_table_with_the_ids(shelf: Shelf) -> None:
    shown = invoke("lineage", shelf.table("one", shelf.ids[GENERATOR]))
    assert shown.exit_code == 0
    assert shelf.ids[GENERATOR] in shown.stdout
    assert "all together" in shown.stdout


def test_lineage_of_what_was_made_without_noise_is_unbounded(shelf: Shelf) -> None:
    path = shelf.table("bare", shelf.charge(GENERATOR, "no-dp"))
    assert json.loads(invoke("lineage", path, "--json").stdout)["together"]["lineage_epsilon"] is None


def test_lineage_refuses_charges_that_the_ledger_does_not_know(shelf: Shelf) -> None:
    refused = invoke("lineage", shelf.table("foreign", "a charge of somebody else"))
    assert refused.exit_code == 1
    assert "does not know" in refused.stderr


def test_lineage_refuses_a_private_artifact_and_a_folder_without_one(shelf: Shelf, tmp_path: Path) -> None:
    private = PrivateTable(pl.LazyFrame({"number": [1]}), corpus_id="corpus", snapshot="1")
    for folder in (stored(tmp_path / "private rows", private), tmp_path):
        assert invoke("lineage", str(folder)).exit_code == 1
