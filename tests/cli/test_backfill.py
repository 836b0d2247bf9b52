"""`dp-instructions backfill` and `snapshot`: what they refuse before anything runs, when they end, and their codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._console import INTERRUPTED
from dp_assets.pipeline.running import Outcome
from tests.cli_pipeline import CliPipeline

MODULE = import_module("dp_assets.cli.backfill")  # the package has a command of the same name
ENDS = {
    "made": Outcome(success=True, interrupted=False, made=("dp_generator",), failed=()),
    "up to date": Outcome(success=True, interrupted=False, made=(), failed=()),
    "refused": Outcome(success=False, interrupted=False, made=(), failed=(("dp_generator", "no room"),), refused=True),
    "failed": Outcome(success=False, interrupted=False, made=(), failed=(("dp_generator", "broke"),)),
    "interrupted": Outcome(success=False, interrupted=True, made=(), failed=(("dp_generator", "stopped"),)),
}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@dataclass
class Runs:
    """Stands for the runs of partitions: each ends as it is told, and what ran is noted."""

    ends: Sequence[str]
    ran: list[str]

    def __call__(self, instance: Any, partition: str) -> Outcome:
        self.ran.append(partition)
        return ENDS[self.ends[len(self.ran) - 1]]


def backfilled(monkeypatch: pytest.MonkeyPatch, *ends: str) -> tuple[Runs, Result]:
    """A backfill of three levels whose runs end so."""
    runs = Runs(ends, [])
    monkeypatch.setattr(MODULE, "run_on", runs)
    assert invoke("register").exit_code == 0
    return runs, invoke("backfill", "--levels", "eps-1,eps-2.86,eps-8")


@pytest.mark.parametrize(
    ("ends", "code", "shown"),
    [
        (("made", "up to date", "made"), 0, ["made", "up to date", "made"]),
        (("made", "refused", "made"), 1, ["made", "refused", "made"]),
        (("made", "failed"), 1, ["made", "failed", "not reached"]),
        (("interrupted",), INTERRUPTED, ["interrupted", "not reached", "not reached"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_backfill_goes_on_after_a_refusal_only(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch, ends: tuple[str, ...], code: int, shown: list[str]
) -> None:
    runs, result = backfilled(monkeypatch, *ends)
    assert result.exit_code == code
    assert runs.ran == ["all|eps-1", "all|eps-2.86", "all|eps-8"][: len(ends)]
    rows = [line for line in result.stdout.splitlines() if line.strip().startswith("all|")]
    assert [word in row for word, row in zip(shown, rows, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--levels", "eps-9"], "eps-2.86"),
        (["--cohorts", "2026-*"], "cohort"),
        (["--levels", ""], "level"),
    ],
)
def test_names_that_match_nothing_are_wrong_usage_and_told_with_the_known_ones(
    pipeline: CliPipeline, options: list[str], named: str
) -> None:
    result = invoke("backfill", *options)
    assert result.exit_code == 2
    assert named in result.stderr


@pytest.mark.parametrize("command", ["backfill", "snapshot"])
def test_an_unregistered_corpus_is_refused_with_the_remedy(pipeline: CliPipeline, command: str) -> None:
    result = invoke(command)
    assert result.exit_code == 1
    assert "dp-instructions register" in result.stderr
