"""`dp-instructions ledger`: what it shows and checks, and its exit codes."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._ledger_tables import print_tables
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.named import selected_profile
from resources.ledger.charging import Charge
from tests.household import Household

LEVEL, REASON = "eps-8", "the board agreed"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def shown() -> dict[str, Any]:
    """What `ledger show --json` prints."""
    value: dict[str, Any] = json.loads(invoke("ledger", "show", "--json").stdout)
    return value


def tables() -> str:
    """What `ledger show` prints on a terminal wide enough for every column, whatever the one of this process is."""
    text = io.StringIO()
    print_tables(Console(file=text, width=200), shown())
    return text.getvalue()


def corpus_of(household: Household) -> str:
    assert invoke("register").exit_code == 0
    (corpus_id,) = household.ledger.state().registrations
    return corpus_id


def charge(household: Household, corpus_id: str, mechanism: str) -> Charge:
    plan = selected_profile().plan(LEVEL)
    return household.ledger.charge(
        plan=plan, mechanism=mechanism, corpus_id=corpus_id, cohort="all", snapshot="1", reuse_key=mechanism
    )


def test_an_unused_ledger_is_shown_as_empty(household: Household) -> None:
    assert shown()["length"] == 0
    assert shown()["charges"] == shown()["cohorts"] == []


def test_show_tells_what_each_charge_costs_alone_and_how_far_it_has_come(household: Household) -> None:
    corpus_id = corpus_of(household)
    first = charge(household, corpus_id, GENERATOR)
    first.mark_opened()
    first.continued("a checkpoint")
    charge(household, corpus_id, HISTOGRAM)
    generator, histogram = shown()["charges"]
    assert (generator["state"], generator["continuations"], generator["spare_steps"]) == ("opened", 1, 2)
    assert (histogram["state"], histogram["continuations"]) == ("booked", 0)
    assert 0 < generator["epsilon_alone"] <= selected_profile().plan(LEVEL).epsilon
    assert all(booking["used"] for booking in shown()["bookings"])
    assert "continued 1 of 2" in tables()
    assert first.charge_id in invoke("ledger", "show").stdout


def test_show_tells_that_a_budget_was_raised_when_and_why(household: Household) -> None:
    corpus_id = corpus_of(household)
    raised = invoke("ledger", "raise", corpus_id, "12", "--reason", REASON, "--json")
    assert json.loads(raised.stdout) == shown()["budget_raises"][0]
    (row,) = shown()["budget_raises"]
    assert (row["before"], row["after"], row["reason"]) == (8.0, 12.0, REASON)
    assert row["at"].startswith("20")
    assert shown()["cohorts"][0]["budget_epsilon"] == 12.0
    assert REASON in tables()


def test_show_names_the_failed_checks_of_a_closed_cohort_but_no_number_of_what_ran(household: Household) -> None:
    booked = charge(household, corpus_of(household), HISTOGRAM)
    with pytest.raises(ClaimRefused):
        booked.settle({}, [Discrepancy("normaliser", 16, 4711)])
    assert shown()["closings"][0]["failed"] == ["normaliser: planned 16"]
    cohort = shown()["cohorts"][0]
    assert (cohort["closed"], cohort["headline_epsilon"], cohort["spent_epsilon"]) == (True, None, None)
    planned, supplement = shown()["charges"]
    assert supplement["supplement_of"] == planned["charge_id"]
    assert "unbounded" in tables()
    assert "4711" not in tables() + json.dumps(shown())


def test_show_counts_erased_units_and_names_none(household: Household) -> None:
    corpus_id = corpus_of(household)
    household.ledger.record_erasure(corpus_id, "user:abc", "asked for it")
    (row,) = shown()["erasures"]
    assert row == {"corpus_id": corpus_id, "units": [household.ledger.erased_hash("user:abc")]}
    assert "erased units" in tables()


def test_a_reason_in_brackets_is_printed_as_it_is(household: Household) -> None:
    invoke("ledger", "raise", corpus_of(household), "12", "--reason", "[bold]see[/] minutes")
    assert "[bold]see[/]" in tables()


def test_void_prints_one_json_value_and_an_opened_charge_is_refused(household: Household) -> None:
    corpus_id = corpus_of(household)
    unused, opened = charge(household, corpus_id, GENERATOR), charge(household, corpus_id, HISTOGRAM)
    opened.mark_opened()
    voided = invoke("ledger", "void", unused.charge_id, "--reason", "a slip", "--json")
    assert json.loads(voided.stdout) == {"charge_id": unused.charge_id, "state": "voided", "reason": "a slip"}
    assert [row["state"] for row in shown()["charges"]] == ["voided", "opened"]
    refused = invoke("ledger", "void", opened.charge_id, "--reason", "regret", "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")


def test_check_says_what_it_checked(household: Household) -> None:
    corpus_of(household)
    anchor = household.ledger.state().anchor
    checked = invoke("ledger", "check")
    assert checked.exit_code == 0
    assert all(what in checked.stdout for what in ("entries: 4", anchor.head, "key:", "anchor.json: has seen"))
    value = json.loads(invoke("ledger", "check", "--json").stdout)
    assert (value["length"], value["head"]) == (anchor.length, anchor.head)
    assert [one["behind"] for one in value["anchors"]] == [0, 0]


def test_check_fails_where_there_is_no_ledger(household: Household) -> None:
    refused = invoke("ledger", "check")
    assert refused.exit_code == 1
    assert "there is no ledger" in refused.stderr


def test_check_tells_of_an_anchor_that_lags_and_of_one_that_is_not_there(household: Household) -> None:
    corpus_id = corpus_of(household)
    beside, released = household.home / "private/ledger/anchor.json", household.home / "released/ledger_anchor.json"
    older = beside.read_text()
    charge(household, corpus_id, HISTOGRAM)
    beside.write_text(older)
    released.unlink()
    value = json.loads(invoke("ledger", "check", "--json").stdout)
    assert [one["behind"] for one in value["anchors"]] == [1, None]
    printed = invoke("ledger", "check").stdout
    assert "lags 1 behind" in printed
    assert "not there" in printed


def test_check_fails_on_an_older_copy(household: Household, tmp_path: Path) -> None:
    corpus_id, ledger = corpus_of(household), household.home / "private/ledger"
    shutil.copytree(ledger, tmp_path / "copy")
    charge(household, corpus_id, HISTOGRAM)
    shutil.rmtree(ledger)
    shutil.copytree(tmp_path / "copy", ledger)
    refused = invoke("ledger", "check", "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("refused: the ledger lacks the entry that its released anchor has seen")


def test_check_finds_a_published_head_and_misses_one_that_was_cut_off(household: Household, tmp_path: Path) -> None:
    corpus_id = corpus_of(household)
    shutil.copytree(household.home, tmp_path / "copy")
    published = shown()["head"]
    charge(household, corpus_id, HISTOGRAM)
    value = json.loads(invoke("ledger", "check", "--head", published, "--json").stdout)
    assert value["heads"] == [{"head": published, "behind": 1}]
    newest = shown()["head"]
    shutil.rmtree(household.home)
    shutil.copytree(tmp_path / "copy", household.home)
    assert invoke("ledger", "check").exit_code == 0
    refused = invoke("ledger", "check", "--head", newest)
    assert refused.exit_code == 1
    assert "charges are missing" in refused.stderr
