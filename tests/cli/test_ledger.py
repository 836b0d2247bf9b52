"""`dp-instructions ledger`: what it shows and checks, and its exit codes."""

import json
import shutil
from pathlib import Path

from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.cli.ledgers import charge, corpus_of, invoke, shown
from tests.cli_pipeline import CliPipeline


def test_an_unused_ledger_is_shown_as_empty(pipeline: CliPipeline) -> None:
    assert shown()["length"] == 0
    assert shown()["charges"] == shown()["cohorts"] == []


def test_void_prints_one_json_value_and_an_opened_charge_is_refused(pipeline: CliPipeline) -> None:
    corpus_id = corpus_of(pipeline)
    unused, opened = charge(pipeline, corpus_id, GENERATOR), charge(pipeline, corpus_id, HISTOGRAM)
    opened.mark_opened()
    voided = invoke("ledger", "void", unused.charge_id, "--reason", "a slip", "--json")
    assert json.loads(voided.stdout) == {"charge_id": unused.charge_id, "state": "voided", "reason": "a slip"}
    assert [row["state"] for row in shown()["charges"]] == ["voided", "opened"]
    refused = invoke("ledger", "void", opened.charge_id, "--reason", "regret", "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")


def test_check_says_what_it_checked(pipeline: CliPipeline) -> None:
    corpus_of(pipeline)
    anchor = pipeline.ledger.state().anchor
    checked = invoke("ledger", "check")
    assert checked.exit_code == 0
    assert all(what in checked.stdout for what in ("entries: 4", anchor.head, "key:", "anchor.json: has seen"))
    value = json.loads(invoke("ledger", "check", "--json").stdout)
    assert (value["length"], value["head"]) == (anchor.length, anchor.head)
    assert [one["behind"] for one in value["anchors"]] == [0, 0]


def test_check_fails_where_there_is_no_ledger(pipeline: CliPipeline) -> None:
    refused = invoke("ledger", "check")
    assert refused.exit_code == 1
    assert "there is no ledger" in refused.stderr


def test_check_tells_of_an_anchor_that_lags_and_of_one_that_is_not_there(pipeline: CliPipeline) -> None:
    corpus_id = corpus_of(pipeline)
    beside, released = pipeline.home / "private/ledger/anchor.json", pipeline.home / "released/ledger_anchor.json"
    older = beside.read_text()
    charge(pipeline, corpus_id, HISTOGRAM)
    beside.write_text(older)
    released.unlink()
    value = json.loads(invoke("ledger", "check", "--json").stdout)
    assert [one["behind"] for one in value["anchors"]] == [1, None]
    printed = invoke("ledger", "check").stdout
    assert "lags 1 behind" in printed
    assert "not there" in printed


def test_check_fails_on_an_older_copy(pipeline: CliPipeline, tmp_path: Path) -> None:
    corpus_id, ledger = corpus_of(pipeline), pipeline.home / "private/ledger"
    shutil.copytree(ledger, tmp_path / "copy")
    charge(pipeline, corpus_id, HISTOGRAM)
    shutil.rmtree(ledger)
    shutil.copytree(tmp_path / "copy", ledger)
    refused = invoke("ledger", "check", "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("refused: the ledger lacks the entry that its released anchor has seen")


def test_check_finds_a_published_head_and_misses_one_that_was_cut_off(pipeline: CliPipeline, tmp_path: Path) -> None:
    corpus_id = corpus_of(pipeline)
    shutil.copytree(pipeline.home, tmp_path / "copy")
    published = shown()["head"]
    charge(pipeline, corpus_id, HISTOGRAM)
    value = json.loads(invoke("ledger", "check", "--head", published, "--json").stdout)
    assert value["heads"] == [{"head": published, "behind": 1}]
    newest = shown()["head"]
    shutil.rmtree(pipeline.home)
    shutil.copytree(tmp_path / "copy", pipeline.home)
    assert invoke("ledger", "check").exit_code == 0
    refused = invoke("ledger", "check", "--head", newest)
    assert refused.exit_code == 1
    assert "charges are missing" in refused.stderr
