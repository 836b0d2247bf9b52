"""What the documents tell people to type exists, and the figures that they quote follow from the code."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from dp_assets.cli import app
from dp_assets.privacy import accounting
from dp_assets.settings.named import load_profile

DEMO = load_profile("demo")
ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SPEAKING_OF_COMMANDS = ("first-run.md", "guarantee.md", "threat-model.md", "operations.md", "faq.md", "gpu.md")
LONGEST = 150


def command_lines(document: Path) -> list[str]:
    """What follows the command's name up to the end of the line or of the code span."""
    return re.findall(r"dp-instructions ([^`\n]+)", document.read_text())


def problem(line: str) -> str | None:
    """Why a command line cannot be meant so; a command without arguments is only spoken of."""
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return f"{line}: no such command"
        command = command.commands[words.pop(0)]
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    positional = [each for each in command.params if each.param_type_name == "argument"]
    given = 0
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            given += 1
        elif word not in options:
            return f"{line}: no option {word}"
        elif not options[word].is_flag:
            words.pop(0)
    most = math.inf if any(argument.nargs < 0 for argument in positional) else len(positional)
    least = sum(argument.required for argument in positional) if given else 0
    return None if least <= given <= most else f"{line}: {given} arguments"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_has_the_options_and_arguments_it_is_given(document: Path) -> None:
    lines = command_lines(document)
    assert lines or document.name not in SPEAKING_OF_COMMANDS
    assert [problem(line) for line in lines if problem(line)] == []


@pytest.mark.parametrize(
    "line", ["frobnicate", "ledger frobnicate", "sql a b", "run all --nothing", "erase a --reason x y"]
)
def test_a_command_line_that_does_not_exist_is_noticed(line: str) -> None:
    assert problem(line) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_documents_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name in SPEAKING_OF_COMMANDS[1:]])
def test_a_document_about_privacy_stays_short(document: Path) -> None:
    assert len(document.read_text().splitlines()) <= LONGEST


def odds() -> dict[str, list[float]]:
    """The rows of the table of odds: epsilon, and four chances."""
    table = re.findall(r"^\| [\d.]+ \|.*", (ROOT / "docs/guarantee.md").read_text(), re.MULTILINE)
    cells = [re.findall(r"[\d.]+", line) for line in table]
    return {epsilon: [float(cell) / 100 for cell in rest] for epsilon, *rest in cells}


def rounded_up(exact: float, stated: float) -> bool:
    """Whether a stated chance bounds the exact one, and not by more than it was rounded."""
    return exact <= stated + 1e-9 and stated - exact <= 0.01


@pytest.mark.parametrize("epsilon", ["0", "1", "2.86", "5.94", "8"])
def test_the_table_of_odds_states_what_epsilon_bounds(epsilon: str) -> None:
    worst_100, worst_1000, suspicion, _ = odds()[epsilon]
    ratio, delta = math.exp(float(epsilon)), 0.0 if epsilon == "0" else DEMO.corpus.delta
    for rate, stated in ((0.01, worst_100), (0.001, worst_1000)):
        assert rounded_up(min(ratio * rate + delta, 1 - (1 - delta - rate) / ratio), stated)
    assert rounded_up(ratio / (1 + ratio), suspicion)


@pytest.mark.parametrize("epsilon", ["1", "2.86", "5.94", "8"])
def test_the_table_of_odds_states_those_of_the_demos_mechanisms(epsilon: str) -> None:
    (exact,) = accounting.trade_off(DEMO.plan(f"eps-{epsilon}").event, [0.01]).values()
    assert rounded_up(exact, odds()[epsilon][-1])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_whole_profile_in_a_document_loads(document: Path, tmp_path: Path) -> None:
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", document.read_text(), re.DOTALL)):
        if text.lstrip().startswith("extends"):
            file = tmp_path / f"profile-{number}.toml"
            file.write_text(text)
            load_profile(str(file))
