"""What `ledger show` tells, as one JSON value and as tables: costs, raised budgets, failed checks and erased units."""

import io
import json

import pytest
from rich.console import Console

from dp_assets.cli._ledger_tables import print_tables
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.named import selected_profile
from tests.cli.ledgers import LEVEL, charge, corpus_of, invoke, shown
from tests.cli_pipeline import CliPipeline

REASON = "the board agreed"


def tables() -> str:
    """What `ledger show` prints on a terminal wide enough for every column, whatever the one of this process is."""
    text = io.StringIO()
    print_tables(Console(file=text, width=200), shown())
    return text.getvalue()


def test_show_tells_what_each_charge_costs_alone_and_how_far_it_has_come(pipeline: CliPipeline) -> None:
    corpus_id = corpus_of(pipeline)
    first = charge(pipeline, corpus_id, GENERATOR)
    first.mark_opened()
    first.continued("a checkpoint")
    charge(pipeline, corpus_id, HISTOGRAM)
    generator, histogram = shown()["charges"]
    assert (generator["state"], generator["continuations"], generator["spare_steps"]) == ("opened", 1, 2)
    assert (histogram["state"], histogram["continuations"]) == ("booked", 0)
    assert 0 < generator["epsilon_alone"] <= selected_profile().plan(LEVEL).epsilon
    assert all(booking["used"] for booking in shown()["bookings"])
    assert "continued 1 of 2" in tables()
    assert first.charge_id in invoke("ledger", "show").stdout


def test_show_tells_that_a_budget_was_raised_when_and_why(pipeline: CliPipeline) -> None:
    corpus_id = corpus_of(pipeline)
    raised = invoke("ledger", "raise", corpus_id, "12", "--reason", REASON, "--json")
    assert json.loads(raised.stdout) == shown()["budget_raises"][0]
    (row,) = shown()["budget_raises"]
    assert (row["before"], row["after"], row["reason"]) == (8.0, 12.0, REASON)
    assert row["at"].startswith("20")
    assert shown()["cohorts"][0]["budget_epsilon"] == 12.0
    assert REASON in tables()


def test_show_names_the_failed_checks_of_a_closed_cohort_but_no_number_of_what_ran(pipeline: CliPipeline) -> None:
    booked = charge(pipeline, corpus_of(pipeline), HISTOGRAM)
    with pytest.raises(ClaimRefused):
        booked.settle({}, [Discrepancy("normaliser", 16, 4711)])
    assert shown()["closings"][0]["failed"] == ["normaliser: planned 16"]
    cohort = shown()["cohorts"][0]
    assert (cohort["closed"], cohort["headline_epsilon"], cohort["spent_epsilon"]) == (True, None, None)
    planned, supplement = shown()["charges"]
    assert supplement["supplement_of"] == planned["charge_id"]
    assert "unbounded" in tables()
    assert "4711" not in tables() + json.dumps(shown())


def test_show_counts_erased_units_and_names_none(pipeline: CliPipeline) -> None:
    corpus_id = corpus_of(pipeline)
    pipeline.ledger.record_erasure(corpus_id, "user:abc", "asked for it")
    (row,) = shown()["erasures"]
    assert row == {"corpus_id": corpus_id, "units": [pipeline.ledger.erased_hash("user:abc")]}
    assert "erased units" in tables()


def test_a_reason_in_brackets_is_printed_as_it_is(pipeline: CliPipeline) -> None:
    invoke("ledger", "raise", corpus_of(pipeline), "12", "--reason", "[bold]see[/] minutes")
    assert "[bold]see[/]" in tables()
