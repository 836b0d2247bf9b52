"""`verify` on folders that lie where the pipeline puts them, and on copies of them elsewhere."""

import json
import os
import shutil
from pathlib import Path

import pytest

from dp_assets.cli.statements import checked_statement
from dp_assets.privacy.plan import GENERATOR
from dp_assets.statements.reading import StatementError
from dp_assets.statements.statement import restated
from dp_assets.statements.verification import PROVES
from resources.storage.zones import HOME_VARIABLE
from tests.cli.released_statements import ARTIFACTS, PLACE, Shelf, document_of, edit, findings, invoke, write_statement
from tests.statements.statements import PLAN, statement_of


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


def test_a_statement_in_the_place_of_another_partition_is_refused(released: Path) -> None:
    moved = released / "privacy_statement/all/eps-1"
    document_of(released).parent.rename(moved)
    assert findings(moved / "document.json")["place"] == "differs"


def test_a_statement_copied_to_any_folder_is_in_the_place_of_no_partition(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads/this month/today"
    shutil.copytree(document_of(released).parent, folder)
    (folder.parents[1] / "another/today").mkdir(parents=True)
    assert "differs" not in findings(folder / "document.json").values()


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


@pytest.mark.parametrize("name", ["index.html", "README.md", "summary.html", ".hidden.md", "more/document.html"])
def test_a_file_beside_a_statement_in_its_place_that_is_none_of_its_own_is_refused(released: Path, name: str) -> None:
    place = document_of(released).parent / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("epsilon 0.05")
    assert findings(document_of(released))[f"file {name}"] == "differs"


def test_what_a_desktop_leaves_beside_a_statement_is_no_reason_to_refuse(released: Path) -> None:
    document_of(released).with_name(".DS_Store").write_text("")
    assert set(findings(document_of(released)).values()) == {"agrees"}


@pytest.mark.parametrize("folder", ["dp_generator", "dp_generator/all", "dp_generator/all/eps-8"])
def test_an_artifact_behind_a_link_is_refused(released: Path, tmp_path: Path, folder: str) -> None:
    (released / folder).rename(tmp_path / "elsewhere")
    (released / folder).symlink_to(tmp_path / "elsewhere")
    assert findings(document_of(released))[f"files of dp_generator/{PLACE}"] == "differs"


@pytest.mark.parametrize("asset", ["filtered-instructions", "Filtered_Instructions", "privacy_statement_2"])
def test_an_artifact_of_an_asset_that_there_is_not_is_refused(released: Path, asset: str) -> None:
    (released / asset / "all").mkdir(parents=True)
    (released / ARTIFACTS[1]).rename(released / asset / PLACE)
    statement = json.loads(document_of(released).read_text())["data"]
    files = {name.replace("dp_histogram", asset): digest for name, digest in statement["files"].items()}
    shutil.rmtree(document_of(released).parent)
    write_statement(document_of(released).parent, restated(statement, files=files))
    assert findings(document_of(released))[f"files of {asset}/{PLACE}"] == "differs"


@pytest.mark.parametrize("form", ["pipe", "link to a pipe", "link"])
def test_a_statement_that_is_no_plain_file_is_refused_and_not_waited_for(
    released: Path, tmp_path: Path, form: str
) -> None:
    document = document_of(released)
    document.rename(tmp_path / "moved")
    if form == "pipe":
        os.mkfifo(document)
    else:
        os.mkfifo(tmp_path / "pipe")
        document.symlink_to(tmp_path / ("moved" if form == "link" else "pipe"))
    with pytest.raises(StatementError, match="another special file"):
        checked_statement(document)
