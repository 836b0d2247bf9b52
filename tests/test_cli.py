"""The command: what it prints, which codes it ends with, and that a second run has nothing to do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import dp_assets.definitions  # noqa: F401 (loaded here under the default profile, not in a test under another one)
from dp_assets.cli import app
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.profiles import PROFILE_VARIABLE, selected_profile
from dp_assets.running import DAGSTER_HOME
from resources.ledger import Ledger
from resources.zones import HOME_VARIABLE
from tests.pipeline import OVERRIDES, PARTITION, write_corpus

COMMAND = [sys.executable, "-m", "dp_assets.cli"]
ROOT = Path(__file__).parents[1]
SECONDS_TO_WAIT = 120


def write_profile(folder: Path, model: str, **generator: Any) -> Path:
    """The tiny profile as a file that extends the demo, beside its corpus."""
    write_corpus(folder / "corpus.parquet")
    settings = {**OVERRIDES, "generator": OVERRIDES["generator"] | generator, "language_model": model}
    source = '{ kind = "file", path = "corpus.parquet", columns = { text = "prompt", user_id = "user" } }'
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, dict)]
    lines += ["[corpus]", f"source = {source}", "min_words = 2", "train_fraction = 0.8"]
    for name, table in settings.items():
        if isinstance(table, dict):
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
    (folder / "tiny.toml").write_text("\n".join(["extends = 'demo'", *lines]))
    return folder / "tiny.toml"


def environment(folder: Path) -> dict[str, str]:
    return {
        PROFILE_VARIABLE: str(folder / "tiny.toml"),
        HOME_VARIABLE: str(folder / "data"),
        DAGSTER_HOME: str(folder / "dagster"),
        "OMP_NUM_THREADS": "1",
    }


def state(folder: Path) -> LedgerState:
    return Ledger(private_root=str(folder / "data" / Zone.PRIVATE)).state()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a profile that this process uses, and an empty data folder."""
    write_profile(tmp_path, "unused")
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    selected_profile.cache_clear()
    yield tmp_path
    selected_profile.cache_clear()


def invoke(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answers)


def test_plan_states_every_constant_and_spends_nothing(folder: Path) -> None:
    result = invoke("plan", "--json", "eps-8", "eps-2.86")
    plans = json.loads(result.stdout)
    assert [plan["level"] for plan in plans] == ["eps-8", "eps-2.86"]
    assert all(0 < plan["epsilon"] <= plan["target_epsilon"] for plan in plans)
    assert plans[0]["dpsgd"]["steps"] == OVERRIDES["generator"]["steps"]
    assert plans[0]["dpsgd"]["noise_multiplier"] < plans[1]["dpsgd"]["noise_multiplier"]
    assert not (folder / "data").exists()


def test_plan_shows_the_planned_levels_as_a_table(folder: Path) -> None:
    result = invoke("plan")
    assert result.exit_code == 0
    assert "eps-8" in result.stdout


def test_a_level_that_no_noise_can_meet_is_refused(folder: Path) -> None:
    result = invoke("plan", "eps-0.01")
    assert result.exit_code == 1
    assert "votes.noise_stddev" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["plan", "eight"], ["run", "all|eps-9"], ["verify", "missing.json"], ["frobnicate"]],
    ids=["level", "partition", "file", "command"],
)
def test_wrong_usage_ends_with_2(folder: Path, arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_an_unknown_partition_is_refused_with_the_known_ones(folder: Path) -> None:
    assert PARTITION in invoke("run", "everyone|eps-8").stderr


def test_registering_books_the_planned_levels_once(folder: Path) -> None:
    first, second = invoke("register"), invoke("register")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == second.stdout
    (registration,) = state(folder).registrations.values()
    assert registration.corpus_id in first.stdout
    assert not registration.is_public
    assert sorted(booking.mechanism for booking in state(folder).bookings.values()) == [GENERATOR, HISTOGRAM]


def test_a_source_is_public_only_where_its_owner_says_so(folder: Path) -> None:
    invoke("register", "--public")
    (registration,) = state(folder).registrations.values()
    assert registration.is_public


def test_ledger_show_states_what_each_cohort_has_spent_of_its_budget(folder: Path) -> None:
    invoke("register")
    (row,) = json.loads(invoke("ledger", "show", "--json").stdout)
    assert (row["cohort"], row["budget_epsilon"], row["unit"]) == ("all", 8.0, "user")
    assert row["epsilon"] == selected_profile().plan("eps-8").epsilon
    assert "8" in invoke("ledger", "show").stdout


def test_a_budget_is_raised_with_a_reason_and_never_lowered(folder: Path) -> None:
    invoke("register")
    (corpus_id,) = state(folder).registrations
    assert invoke("ledger", "raise", corpus_id, "12", answers="the board agreed\n").exit_code == 0
    assert state(folder).registrations[corpus_id].budget_epsilon == 12
    assert invoke("ledger", "raise", corpus_id, "9", "--reason", "regret").exit_code == 1
    assert state(folder).registrations[corpus_id].budget_epsilon == 12


def test_voiding_an_unknown_charge_is_refused(folder: Path) -> None:
    invoke("register")
    assert invoke("ledger", "void", "nothing", "--reason", "a slip").exit_code == 1


def test_a_lost_ledger_is_refused_as_one_message(folder: Path) -> None:
    invoke("register")
    (folder / "data" / "private" / "ledger" / "ledger.duckdb").unlink()
    result = invoke("ledger", "show")
    assert result.exit_code == 1
    assert result.stderr.startswith("refused: the ledger is missing")


def test_a_profile_with_mistakes_is_refused_with_all_of_them(folder: Path) -> None:
    (folder / "tiny.toml").write_text("[generator]\nsteps = 0\n[votes]\nnum_bins = 1\n")
    result = invoke("plan")
    assert result.exit_code == 1
    assert "generator.steps" in result.stderr
    assert "votes.num_bins" in result.stderr


def test_a_profile_with_mistakes_is_no_traceback_in_a_fresh_process(folder: Path) -> None:
    (folder / "tiny.toml").write_text("[generator]\nsteps = 0\n")
    refused = subprocess.run([*COMMAND, "run", PARTITION], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("refused: ")
    assert "generator.steps" in refused.stderr


def test_sql_answers_before_anything_was_released_and_shows_text_as_it_is(folder: Path) -> None:
    invoke("register")
    assert invoke("sql", "select count(*) as charges from costs").exit_code == 0
    assert "[/b] [red]x" in invoke("sql", "select '[/b] [red]x' as text").stdout


def test_a_query_with_a_mistake_is_refused(folder: Path) -> None:
    result = invoke("sql", "select nothing from nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


@pytest.mark.parametrize("content", ["{", "{}", '{"data": {}}', '{"data": 3}'])
def test_a_file_that_is_no_statement_is_refused(folder: Path, content: str) -> None:
    (folder / "document.json").write_text(content)
    result = invoke("verify", str(folder / "document.json"))
    assert result.exit_code == 1
    assert "privacy statement" in result.stderr


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, because profile and partitions are read when the code loads."""
    settings = os.environ | environment(folder)
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=settings, capture_output=True, text=True)


@pytest.mark.slow
def test_an_unregistered_corpus_is_refused_with_the_remedy_and_nothing_is_read(folder: Path) -> None:
    refused = run_command(folder, "run", PARTITION)
    assert refused.returncode == 1
    assert "dp-instructions register" in refused.stderr
    assert not (folder / "data" / "private" / "artifacts").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A folder in which the whole graph ran once from the command line."""
    folder = tmp_path_factory.mktemp("finished")
    write_profile(folder, str(tiny_model_folder))
    assert run_command(folder, "register").returncode == 0
    first = run_command(folder, "run", PARTITION)
    assert first.returncode == 0, first.stderr
    return folder


def statement_of(folder: Path) -> Path:
    return folder / "data/released/artifacts/privacy_statement/all/eps-8/document.json"


@pytest.mark.slow
def test_a_second_run_is_up_to_date_and_appends_nothing_to_the_ledger(finished: Path) -> None:
    before = state(finished).anchor
    again = run_command(finished, "run", PARTITION)
    assert again.returncode == 0
    assert again.stderr.splitlines() == [f"{PARTITION} is up to date"]
    assert state(finished).anchor == before


@pytest.mark.slow
def test_the_statement_verifies_and_an_edited_one_is_refused(finished: Path, tmp_path: Path) -> None:
    assert run_command(finished, "verify", str(statement_of(finished))).returncode == 0
    document = json.loads(statement_of(finished).read_text())
    document["data"]["guarantee"]["cohort_epsilon"] = 0.5
    (tmp_path / "edited.json").write_text(json.dumps(document))
    refused = run_command(finished, "verify", str(tmp_path / "edited.json"))
    assert refused.returncode == 1
    assert "cohort_epsilon" in refused.stderr


@pytest.mark.slow
def test_sql_asks_released_tables_and_metrics(finished: Path) -> None:
    counted = run_command(finished, "sql", "select count(*) as filtered from filtered_instructions")
    assert str(OVERRIDES["selection"]["target_size"]) in counted.stdout
    assert "total_variation" in run_command(finished, "sql", "select distinct metric from metrics").stdout


@pytest.mark.slow
def test_ledger_show_lists_the_settled_charges(finished: Path) -> None:
    shown = run_command(finished, "ledger", "show").stdout
    assert all(mechanism in shown for mechanism in (GENERATOR, HISTOGRAM))
    assert shown.count("settled") == 2


@pytest.mark.slow
def test_an_interrupted_run_ends_with_130_and_is_continued_by_the_next(tmp_path: Path, tiny_model_folder: Path) -> None:
    write_profile(tmp_path, str(tiny_model_folder), steps=60)
    assert run_command(tmp_path, "register").returncode == 0
    settings = os.environ | environment(tmp_path)
    command = [*COMMAND, "run", PARTITION]
    with subprocess.Popen(command, cwd=ROOT, env=settings, stderr=subprocess.PIPE, text=True) as running:
        wait_for_a_checkpoint(tmp_path)
        running.send_signal(signal.SIGINT)
        _, messages = running.communicate()
    assert running.returncode == 130
    assert "was interrupted" in messages
    again = run_command(tmp_path, "run", PARTITION)
    assert again.returncode == 0, again.stderr
    assert "== real_instructions" not in again.stderr
    charges = list(state(tmp_path).charges.values())
    assert sorted(charge.mechanism for charge in charges) == [GENERATOR, HISTOGRAM]
    assert all(charge.settled and charge.booking_id for charge in charges)


def wait_for_a_checkpoint(folder: Path) -> None:
    """Return once private training has begun."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not list((folder / "data" / "private").glob("checkpoints/*/state.pt")):
        assert time.monotonic() < deadline, "training never began"
        time.sleep(0.02)
