"""What commands print, at any width and with any wish about colors: nothing is cut, and JSON has no colors."""

import contextlib
import errno
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._console import out, refusals
from dp_assets.cli._tables import print_table
from tests.household import Household

ROWS = [
    ("eps-8", "7.9994", "of a mean bin", "/data/" + "folder/" * 12 + "file.parquet"),
    ("eps-2.86", "2.8", "two lines\nof one cell", "[bold]no markup[/]"),
]
HEADINGS = ("level", "epsilon, one replaced", "signal / noise", "where it lies")
CHARGES = [("0123456789abcdef0123456789abcdef", "1")]
ESCAPE = "\x1b"


def printed(width: int, headings: tuple[str, ...] = HEADINGS, **options: object) -> list[str]:
    stream = io.StringIO()
    rows = ROWS if headings == HEADINGS else CHARGES
    print_table(Console(file=stream, width=width, soft_wrap=True), headings, rows, **options)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 50, 60, 80, 200])
def test_a_table_keeps_the_words_of_headings_and_cells_at_every_width(width: int) -> None:
    lines = printed(width, folding=("where it lies",))
    text = "\n".join(lines)
    for word in " ".join(HEADINGS).split():
        assert re.search(rf"(^|\s){re.escape(word)}:?(\s|$)", text, re.MULTILINE), (word, text)
    for word in ("eps-2.86", "7.9994", "mean", "markup[/]"):
        assert word in text
    assert "\u2026" not in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_is_no_wider_than_the_terminal_and_loses_no_letter_of_a_long_path(width: int) -> None:
    lines = printed(width, folding=("where it lies",))
    assert max(map(len, lines)) <= width
    first, second = (number for number, line in enumerate(lines) if line.startswith("eps-"))
    assert "".join(line.split()[-1] for line in lines[first:second]).endswith(ROWS[0][3])


@pytest.mark.parametrize("width", [10, 30, 80])
def test_a_column_that_is_to_be_copied_stays_on_one_line(width: int) -> None:
    assert any(CHARGES[0][0] in line for line in printed(width, ("charge", "spare steps"), whole=("charge",)))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("width", [60, 80])
def test_plan_keeps_its_headings(household: Household, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(out, "width", width)
    shown = invoke("plan", "eps-8", "eps-2.86", "--units", "100000").stdout
    assert "\u2026" not in shown
    words = ("multiplier", "histogram", "epsilon,", "replaced", "signal", "quotas", "probability", "parameters,")
    for word in words:
        assert word in shown, (word, shown)


def test_register_prints_the_path_of_the_ledger_in_one_piece(
    household: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 40)
    assert f"ledger: {household.home / 'private' / 'ledger'}\n" in invoke("register").stdout


def in_a_terminal(household: Household, *arguments: str, **environment: str) -> str:
    """What a command prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dp_assets.cli", *arguments]
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    settings |= {**household.environment, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=settings) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # which says that the other end is closed
            while block := os.read(ours, 65536):
                shown += block
        process.wait(timeout=60)
    os.close(ours)
    return shown.decode()


def test_json_has_no_colors_even_where_they_are_forced(household: Household) -> None:
    shown = in_a_terminal(household, "plan", "--json", FORCE_COLOR="1")
    assert ESCAPE not in shown
    assert json.loads(shown)["levels"]


def test_colors_are_left_out_where_nobody_wants_them(household: Household) -> None:
    colored = re.compile(rf"{ESCAPE}\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|38;|48;)")
    assert colored.search(in_a_terminal(household, "ledger", "check"))
    assert not colored.search(in_a_terminal(household, "ledger", "check", NO_COLOR="1", FORCE_COLOR="1"))


UNUSABLE = [errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR]


@pytest.mark.parametrize("number", UNUSABLE)
def test_a_place_that_cannot_be_used_is_one_message(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), "/the/home")

    with pytest.raises(typer.Exit):
        refusals(command)()
    assert re.fullmatch(rf"refused: .*{os.strerror(number)}.*'/the/home'; check the path.*\n", capsys.readouterr().err)


def test_any_other_error_of_the_system_keeps_its_traceback() -> None:
    def command() -> None:
        raise OSError(errno.EIO, "broken", "/the/home")

    with pytest.raises(OSError, match="broken"):
        refusals(command)()


@pytest.mark.parametrize("command", [("register",), ("home",), ("ledger", "check"), ("sql", "from metrics")])
def test_a_home_with_a_name_too_long_is_refused(
    household: Household, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(household.folder / ("x" * 300)))
    monkeypatch.setenv("DAGSTER_HOME", str(household.folder / ("x" * 300)))
    refused = invoke(*command)
    assert refused.exit_code == 1
    assert "File name too long" in refused.stderr
    assert "Traceback" not in refused.stderr
