"""What commands print, at any width and with any wish about colors: nothing is cut, and JSON has no colors."""

import contextlib
import errno
import json
import os
import pty
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._console import out, refusals
from dp_assets.privacy.errors import PublicError
from resources.public_failure import PublicFailure
from tests.cli_pipeline import CliPipeline

ESCAPE = "\x1b"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("width", [60, 80])
def test_plan_keeps_its_headings(pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(out, "width", width)
    shown = invoke("plan", "eps-8", "eps-2.86", "--units", "100000").stdout
    assert "\u2026" not in shown
    words = ("multiplier", "histogram", "epsilon,", "replaced", "signal", "quotas", "probability", "parameters,")
    for word in words:
        assert word in shown, (word, shown)


def test_register_prints_the_path_of_the_ledger_in_one_piece(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 40)
    assert f"ledger: {pipeline.home / 'private' / 'ledger'}\n" in invoke("register").stdout


def in_a_terminal(pipeline: CliPipeline, *arguments: str, **environment: str) -> str:
    """What a command prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dp_assets.cli", *arguments]
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    settings |= {**pipeline.environment, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=settings) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # which says that the other end is closed
            while block := os.read(ours, 65536):
                shown += block
        process.wait(timeout=60)
    os.close(ours)
    return shown.decode()


def test_json_has_no_colors_even_where_they_are_forced(pipeline: CliPipeline) -> None:
    shown = in_a_terminal(pipeline, "plan", "--json", FORCE_COLOR="1")
    assert ESCAPE not in shown
    assert json.loads(shown)["levels"]


def test_colors_are_left_out_where_nobody_wants_them(pipeline: CliPipeline) -> None:
    colored = re.compile(rf"{ESCAPE}\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|38;|48;)")
    assert colored.search(in_a_terminal(pipeline, "ledger", "check"))
    assert not colored.search(in_a_terminal(pipeline, "ledger", "check", NO_COLOR="1", FORCE_COLOR="1"))


UNUSABLE = [errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR]


@pytest.mark.parametrize("number", UNUSABLE)
def test_a_place_that_cannot_be_used_is_one_message(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), "/the/home")

    with pytest.raises(typer.Exit):
        refusals(command)()
    assert re.fullmatch(rf"refused: .*{os.strerror(number)}.*'/the/home'; check the path.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("error", [PublicError("[no] such place"), PublicFailure("[no] such place")])
def test_a_public_error_is_one_message(error: PublicError, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        refusals(command)()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "refused: [no] such place\n"


def test_an_error_that_is_not_public_keeps_its_traceback() -> None:
    def command() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        refusals(command)()


def test_any_other_error_of_the_system_keeps_its_traceback() -> None:
    def command() -> None:
        raise OSError(errno.EIO, "broken", "/the/home")

    with pytest.raises(OSError, match="broken"):
        refusals(command)()


@pytest.mark.parametrize("command", [("register",), ("home",), ("ledger", "check"), ("sql", "from metrics")])
def test_a_home_with_a_name_too_long_is_refused(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DP_INSTRUCTIONS_HOME", str(pipeline.folder / ("x" * 300)))
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.folder / ("x" * 300)))
    refused = invoke(*command)
    assert refused.exit_code == 1
    assert "File name too long" in refused.stderr
    assert "Traceback" not in refused.stderr
