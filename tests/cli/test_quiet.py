"""What the command changes of its libraries: telemetry, bars, DuckDB's last words, and how Polars handles SIGINT."""

import os
import subprocess
import sys

import pytest

from dp_assets.cli.quiet import ENVIRONMENT
from tests.cli_pipeline import ROOT

CODE = """
import atexit, os, sys
from dp_assets.cli.quiet import quiet_process
atexit.register(lambda: print("registered before", file=sys.stderr))
quiet_process()
atexit.register(lambda: print("registered after", file=sys.stderr))
print(os.environ["HF_HUB_DISABLE_TELEMETRY"], os.environ["TOKENIZERS_PARALLELISM"])
print("while it runs", file=sys.stderr)
"""


def ended(**environment: str) -> subprocess.CompletedProcess[str]:
    """A process that was quieted and has ended."""
    settings = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    settings |= {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", CODE], env=settings, capture_output=True, text=True, check=True)


def test_libraries_are_silenced_but_for_what_the_user_set() -> None:
    assert ended().stdout == "1 false\n"
    assert ended(TOKENIZERS_PARALLELISM="true").stdout == "1 true\n"


def test_what_earlier_exit_handlers_say_is_lost_and_later_ones_are_heard() -> None:
    assert ended().stderr.splitlines() == ["while it runs", "registered after"]


WAITING = """
import os, signal, threading, time
from dp_assets import cli
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
ended = threading.Event()
threading.Timer(20, ended.set).start()
cli.app = ended.wait
began = time.monotonic()
try:
    cli.main()
finally:
    print(time.monotonic() - began < 10, flush=True)
    os._exit(0)
"""


@pytest.mark.slow
def test_an_interrupt_ends_a_wait_of_the_command_at_once() -> None:
    waited = subprocess.run(
        [sys.executable, "-c", WAITING], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert waited.stdout == "True\n"
