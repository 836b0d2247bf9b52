"""The command: what it prints, which codes it ends with, and that a second run has nothing to do."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import dp_assets.definitions  # noqa: F401 (loaded here under the default profile, not in a test under another one)
from dp_assets.cli import app
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.named import selected_profile
from resources.storage.zones import HOME_VARIABLE
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import OVERRIDES, PARTITION

SECONDS_TO_WAIT = 120


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliPipeline]:
    """A folder whose profile this process uses; it needs no model unless the graph runs."""
    pipeline = CliPipeline(tmp_path, Path("no model"))
    for name, value in pipeline.environment.items():
        monkeypatch.setenv(name, value)
    selected_profile.cache_clear()
    yield pipeline
    selected_profile.cache_clear()


def invoke(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answers)


def test_a_level_that_no_noise_can_meet_is_refused(pipeline: CliPipeline) -> None:
    result = invoke("plan", "eps-0.01")
    assert result.exit_code == 1
    assert "votes.noise_stddev" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["plan", "eight"], ["run", "all|eps-9"], ["verify", "missing.json"], ["frobnicate"]],
    ids=["level", "partition", "file", "command"],
)
def test_wrong_usage_ends_with_2(pipeline: CliPipeline, arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("partition", "known"),
    [("everyone|eps-8", "has all"), ("all|eps-9", "has eps-1, eps-2.86, eps-5.94, eps-8"), ("all", "all|eps-1")],
)
def test_an_unknown_partition_is_refused_with_the_known_ones(pipeline: CliPipeline, partition: str, known: str) -> None:
    assert known in invoke("run", partition).stderr


def test_registering_books_the_planned_levels_once(pipeline: CliPipeline) -> None:
    first, second = invoke("register"), invoke("register")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == second.stdout
    (registration,) = pipeline.ledger.state().registrations.values()
    assert registration.corpus_id in first.stdout
    assert not registration.is_public
    assert sorted(booking.mechanism for booking in pipeline.ledger.state().bookings.values()) == [GENERATOR, HISTOGRAM]


def test_a_source_is_public_only_where_its_owner_says_so(pipeline: CliPipeline) -> None:
    invoke("register", "--public")
    (registration,) = pipeline.ledger.state().registrations.values()
    assert registration.is_public


def test_ledger_show_states_what_each_cohort_has_spent_of_its_budget(pipeline: CliPipeline) -> None:
    invoke("register")
    (row,) = json.loads(invoke("ledger", "show", "--json").stdout)["cohorts"]
    assert (row["cohort"], row["budget_epsilon"], row["unit"]) == ("all", 8.0, "user")
    assert row["spent_epsilon"] == selected_profile().plan("eps-8").epsilon
    assert "8" in invoke("ledger", "show").stdout


def test_a_budget_is_raised_with_a_reason_and_never_lowered(pipeline: CliPipeline) -> None:
    invoke("register")
    (corpus_id,) = pipeline.ledger.state().registrations
    assert invoke("ledger", "raise", corpus_id, "12", answers="the board agreed\n").exit_code == 0
    assert pipeline.ledger.state().registrations[corpus_id].budget_epsilon == 12
    assert invoke("ledger", "raise", corpus_id, "9", "--reason", "regret").exit_code == 1
    assert pipeline.ledger.state().registrations[corpus_id].budget_epsilon == 12


def test_voiding_an_unknown_charge_is_refused(pipeline: CliPipeline) -> None:
    invoke("register")
    assert invoke("ledger", "void", "nothing", "--reason", "a slip").exit_code == 1


def test_a_lost_ledger_is_refused_as_one_message(pipeline: CliPipeline) -> None:
    invoke("register")
    (pipeline.home / "private/ledger/ledger.duckdb").unlink()
    result = invoke("ledger", "show")
    assert result.exit_code == 1
    assert result.stderr.startswith("refused: the ledger is missing")


def test_a_profile_with_mistakes_is_refused_with_all_of_them(pipeline: CliPipeline) -> None:
    pipeline.profile_file.write_text("[generator]\nsteps = 0\n[votes]\nnum_bins = 1\n")
    result = invoke("plan")
    assert result.exit_code == 1
    assert "generator.steps" in result.stderr
    assert "votes.num_bins" in result.stderr


def test_a_profile_with_mistakes_is_no_traceback_in_a_fresh_process(pipeline: CliPipeline) -> None:
    pipeline.profile_file.write_text("[generator]\nsteps = 0\n")
    refused = pipeline.command("run", PARTITION)
    assert refused.returncode == 1
    assert refused.stderr.startswith("refused: ")
    assert "generator.steps" in refused.stderr


def test_sql_answers_before_anything_was_released_and_shows_text_as_it_is(pipeline: CliPipeline) -> None:
    invoke("register")
    assert invoke("sql", "select count(*) as charges from costs").exit_code == 0
    assert "[/b] [red]x" in invoke("sql", "select '[/b] [red]x' as text").stdout


def test_a_query_with_a_mistake_is_refused(pipeline: CliPipeline) -> None:
    result = invoke("sql", "select nothing from nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


@pytest.mark.slow
def test_an_unregistered_corpus_is_refused_with_the_remedy_and_nothing_is_read(pipeline: CliPipeline) -> None:
    refused = pipeline.command("run", PARTITION)
    assert refused.returncode == 1
    assert "dp-instructions register" in refused.stderr
    assert not (pipeline.home / "private/artifacts").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> CliPipeline:
    """A pipeline in which the whole graph ran once from the command line."""
    pipeline = CliPipeline(tmp_path_factory.mktemp("finished"), tiny_model_folder)
    assert pipeline.command("register").returncode == 0
    first = pipeline.command("run", PARTITION)
    assert first.returncode == 0, first.stderr
    return pipeline


def statement_of(pipeline: CliPipeline) -> Path:
    return pipeline.home / "released/artifacts/privacy_statement/all/eps-8/document.json"


@pytest.mark.slow
def test_a_second_run_is_up_to_date_and_appends_nothing_to_the_ledger(finished: CliPipeline) -> None:
    before = finished.ledger.state().anchor
    again = finished.command("run", PARTITION)
    assert again.returncode == 0
    assert again.stderr.splitlines()[0] == f"{PARTITION} is up to date"
    assert "==" not in again.stderr
    assert finished.ledger.state().anchor == before


@pytest.mark.slow
def test_the_statement_verifies_and_an_edited_one_is_refused(finished: CliPipeline, tmp_path: Path) -> None:
    verified = invoke("verify", str(statement_of(finished)), "--home", str(finished.home), "--json")
    assert verified.exit_code == 0
    found = {one["check"]: one["outcome"] for one in json.loads(verified.stdout)["findings"]}
    unchecked = {check.removeprefix("files of ").split("/")[0] for check in found if found[check] == "not checked"}
    assert set(found.values()) == {"agrees", "not checked"}
    assert unchecked == {  # made after the statement
        "annotated_instructions", "preference_pairs", "sft_model", "reward_model", "rlhf_model", "quality_report",
        "release_report",
    }  # fmt: skip
    assert found["ledger now"] == "agrees"
    document = json.loads(statement_of(finished).read_text())
    document["data"]["guarantee"]["cohort_epsilon"] = 0.5
    (tmp_path / "edited.json").write_text(json.dumps(document))
    refused = invoke("verify", str(tmp_path / "edited.json"))
    assert refused.exit_code == 1
    assert "cohort_epsilon" in refused.stderr


@pytest.mark.slow
def test_sql_asks_released_tables_and_metrics(finished: CliPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(finished.home))
    counted = invoke("sql", "select count(*) as filtered from filtered_instructions")
    assert str(OVERRIDES["selection"]["target_size"]) in counted.stdout
    assert "total_variation" in invoke("sql", "select distinct metric from metrics").stdout


@pytest.mark.slow
def test_ledger_show_lists_the_settled_charges(finished: CliPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(finished.home))
    shown = invoke("ledger", "show").stdout
    assert all(mechanism in shown for mechanism in (GENERATOR, HISTOGRAM))
    assert shown.count("settled") == 2
    assert all(charge_id in shown for charge_id in finished.ledger.state().charges)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_130_and_is_continued_by_the_next(tmp_path: Path, tiny_model_folder: Path) -> None:
    pipeline = CliPipeline(tmp_path, tiny_model_folder, steps=60)
    assert pipeline.command("register").returncode == 0
    with pipeline.start("run", PARTITION) as running:
        wait_for_a_checkpoint(pipeline)
        running.send_signal(signal.SIGINT)
        _, messages = running.communicate()
    assert running.returncode == 130
    assert "was interrupted" in messages
    again = pipeline.command("run", PARTITION)
    assert again.returncode == 0, again.stderr
    assert "== real_instructions" not in again.stderr
    charges = list(pipeline.ledger.state().charges.values())
    assert sorted(charge.mechanism for charge in charges) == [GENERATOR, HISTOGRAM]
    assert all(charge.settled and charge.booking_id for charge in charges)


def wait_for_a_checkpoint(pipeline: CliPipeline) -> None:
    """Return once private training has begun."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not list((pipeline.home / "private").glob("checkpoints/*/state.pt")):
        assert time.monotonic() < deadline, "training never began"
        time.sleep(0.02)
