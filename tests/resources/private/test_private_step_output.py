"""Meanwhile everything said goes to the private log, and afterwards everything is as it was."""

import ctypes
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from dp_assets.progress import progress
from resources.private.private_step import SPILL_FOLDER, log_file, output_kept_inside, temporary_folder

SECRET = "my card is 4929 1111"
SPILLING = """
import sys, polars as pl
from pathlib import Path
from resources.private.private_step import keep_spilled_rows_private
keep_spilled_rows_private(Path(sys.argv[1]))
rows = pl.LazyFrame({"a": pl.int_range(600_000, eager=True)}).with_columns(t=pl.col("a").cast(pl.String) + "-secret")
rows.sort("t").sink_parquet(sys.argv[2])
"""


def warn() -> None:
    warnings.warn(SECRET, stacklevel=1)


def log_with_own_handler() -> None:
    logger = logging.getLogger("a.library")
    logger.propagate = False
    logger.error(SECRET)


SAYINGS: dict[str, Callable[[], object]] = {
    "print": lambda: print(SECRET),
    "print without end": lambda: print(SECRET, end=""),
    "bytes": lambda: sys.stdout.buffer.write(SECRET.encode()),
    "standard error": lambda: print(SECRET, file=sys.stderr),
    "descriptors": lambda: [os.write(descriptor, SECRET.encode()) for descriptor in (1, 2)],
    "printf": lambda: ctypes.CDLL(None).printf(SECRET.encode()),
    "child process": lambda: subprocess.run(["echo", SECRET], check=True),
    "warning": warn,
    "root logger": lambda: logging.getLogger().error(SECRET),
    "named logger": lambda: logging.getLogger("some.library").error(SECRET),
    "logger with a handler": log_with_own_handler,
    "dagster's logger": lambda: dg.get_dagster_logger().error(SECRET),
}


@pytest.fixture(params=["captured streams", "captured descriptors"])
def heard(request: pytest.FixtureRequest) -> Callable[[], str]:
    """What is heard outside, with Python's streams in the way of the descriptors and without."""
    name = {"captured streams": "capsys", "captured descriptors": "capfd"}[request.param]
    capture = request.getfixturevalue(name)
    return lambda: "".join(capture.readouterr())


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[Path]:
    """The file of a log handler outside the private zone."""
    writing = logging.FileHandler(tmp_path / "public.log", delay=True)
    loggers = [logging.getLogger(), logging.getLogger("a.library")]
    for logger in loggers:
        logger.addHandler(writing)
    yield tmp_path / "public.log"
    for logger in loggers:
        logger.removeHandler(writing)


@pytest.mark.parametrize("saying", SAYINGS)
def test_what_is_said_is_heard_in_the_private_log_only(
    tmp_path: Path, heard: Callable[[], str], handler: Path, recwarn: pytest.WarningsRecorder, saying: str
) -> None:
    with output_kept_inside(tmp_path / "private"):
        SAYINGS[saying]()
    assert SECRET in log_file(tmp_path / "private").read_text()
    assert heard() == ""
    assert not handler.exists()
    assert list(recwarn) == []


def test_what_was_said_before_and_is_said_after_is_heard_outside(
    tmp_path: Path, heard: Callable[[], str], handler: Path
) -> None:
    print("before", end="")
    with output_kept_inside(tmp_path / "private"):
        print(SECRET)
    print("after")
    logging.getLogger("a.library").error("logged after")
    assert "beforeafter" in heard()
    assert "logged after" in handler.read_text()
    assert log_file(tmp_path / "private").read_text() == f"{SECRET}\n"


def test_a_library_that_keeps_the_stream_goes_on_speaking_outside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with output_kept_inside(tmp_path / "private"):
        kept = logging.StreamHandler()
        kept.stream.write(SECRET)
    kept.stream.write("public")
    assert capfd.readouterr() == ("", "public")


def test_a_handler_that_a_library_adds_stays(tmp_path: Path) -> None:
    logger, added = logging.getLogger(), logging.NullHandler()
    before = list(logger.handlers)
    with output_kept_inside(tmp_path / "private"):
        logger.addHandler(added)
    assert logger.handlers == [*before, added]
    logger.removeHandler(added)


def test_progress_of_public_quantities_is_still_shown(tmp_path: Path, heard: Callable[[], str]) -> None:
    with output_kept_inside(tmp_path / "private"), progress("training", 3, "steps") as advance:
        advance(3)
        print(SECRET)
    assert heard() == "training: 3/3 steps, 0 s\n"


def test_everything_is_as_before_after_an_error(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        descriptors = [os.fstat(descriptor).st_ino for descriptor in (1, 2)]
        return (
            sys.stdout,
            sys.stderr,
            logging.getLogger().handlers,
            tempfile.tempdir,
            descriptors,
            os.listdir("/dev/fd"),
        )

    before = state()
    with pytest.raises(RuntimeError), output_kept_inside(tmp_path / "private"):
        raise RuntimeError
    assert state() == before


def test_steps_may_lie_inside_each_other(tmp_path: Path, heard: Callable[[], str]) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    with output_kept_inside(outer):
        with output_kept_inside(inner):
            print(SECRET)
        print("outer")
    assert (log_file(inner).read_text(), log_file(outer).read_text(), heard()) == (f"{SECRET}\n", "outer\n", "")


def test_temporary_files_are_private(tmp_path: Path) -> None:
    with output_kept_inside(tmp_path / "private"), tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == temporary_folder(tmp_path / "private")
    assert temporary_folder(tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_the_log_is_closed_to_others_even_if_it_was_open(tmp_path: Path) -> None:
    log = log_file(tmp_path / "private")
    log.parent.mkdir(parents=True)
    log.touch(mode=0o666)
    with output_kept_inside(tmp_path / "private"):
        pass
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_rows_that_do_not_fit_into_memory_are_spilled_into_the_private_zone(tmp_path: Path) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    tight = {"POLARS_OOC_MEMORY_BUDGET_MB": "1", "POLARS_OOC_SPILL_MIN_BYTES": "1", "POLARS_TEMP_DIR": str(public)}
    command = [sys.executable, "-c", SPILLING, str(private), str(tmp_path / "sorted.parquet")]
    subprocess.run(command, env=os.environ | tight, check=True, cwd=Path(__file__).parents[3])
    (spilled,) = temporary_folder(private).iterdir()
    assert spilled.stat().st_mode & 0o777 == 0o700
    assert not public.exists()


def test_a_step_outside_a_code_location_chooses_where_rows_are_spilled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPILL_FOLDER, str(tmp_path / "public"))
    with output_kept_inside(tmp_path / "private"):
        assert os.environ[SPILL_FOLDER] == str(temporary_folder(tmp_path / "private"))
