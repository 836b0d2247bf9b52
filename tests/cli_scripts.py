"""Scripts that a process runs inside a pipeline: `python -m tests.cli_scripts SCRIPT FOLDER`.

    recorded    register, an interrupted run and a full one, with a note of which private rows reached what
    broken      every private step of the graph fails in several ways, saying all it can
    replayed    the graph down to the histogram, with randomness that repeats
    interrupted_backfill    two partitions, the second of them interrupted in private training, and the same again

A recorder notes what it saw in `FOLDER/record`, which counts as private.
"""

import ctypes
import functools
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import dagster as dg
import duckdb
import polars as pl

from dp_assets import cli
from dp_assets.cli._console import open_ledger
from dp_assets.privacy.randomness import SystemRandomness
from resources.storage.zones import data_home
from tests.cli_pipeline import interrupt_in_step
from tests.privacy.replay import ReplayableSource
from tests.tiny_pipeline import DOWN_TO_THE_HISTOGRAM, OVERRIDES, PARTITION

MARK = "zq4711kumquat"
STEPS_OF_A_GENERATOR = OVERRIDES["generator"]["steps"]
# The private steps in the order of the graph: the asset each belongs to, and a function that is handed private rows.
PRIVATE_STEPS = {
    "preparing": ("real_instructions", "dp_assets.stages.preparation:prepare"),
    "storing": ("real_instructions", "resources.storage.stores:write_artifact"),
    "training": ("dp_generator", "dp_assets.generation.token_rows:EncodedOnDraw.__getitem__"),
    "embedding": ("real_embeddings", "resources.models.loaders:Embedder.encode_alone"),
    "voting": ("dp_histogram", "dp_assets.selection.noisy_votes:exact_votes"),
    "reporting": ("restricted_report", "dp_assets.evaluation.restricted:copy_figures"),
}


def command(*arguments: str) -> int:
    """Run the command in this process."""
    sys.argv[1:] = arguments
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def replace(function: str, other: Callable[..., Any]) -> Callable[[], None]:
    """Put another function in the place of one, and return what puts it back."""
    module, _, path = function.partition(":")
    *owner, name = path.split(".")
    place = resolve_name(f"{module}:{'.'.join(owner)}")
    former = getattr(place, name)
    setattr(place, name, other)
    return lambda: setattr(place, name, former)


class Recorder:
    """Notes which rows were tokenized, drawn and voted, whom the process talked to, and which files it wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen: dict[str, list[Any]] = {name: [] for name in ("tokenised", "batches", "voters", "talks", "files")}

    def watch(self) -> None:
        self._listen("dp_assets.generation.token_rows:encode_instruction", self._tokenized)
        self._listen("dp_assets.dpsgd.training:_sample", self._drawn)
        self._listen("dp_assets.selection.votes:one_row_each_unit", self._voted)
        sys.addaudithook(self._heard)

    def write(self, **further: Any) -> None:
        (self._folder / "record" / "seen.json").write_text(json.dumps(self.seen | further))

    def _listen(self, function: str, note: Callable[..., None]) -> None:
        former = resolve_name(function)

        @functools.wraps(former)
        def heard(*args: Any, **kwargs: Any) -> Any:
            result = former(*args, **kwargs)
            note(result, *args)
            return result

        replace(function, heard)

    def _tokenized(self, token_ids: list[int], _: Any, text: str) -> None:
        self.seen["tokenised"].append([text, list(token_ids)])

    def _drawn(self, drawn: Any, *_: Any) -> None:
        rows, _ = drawn
        self.seen["batches"].append([list(row.target_ids) for row in rows])

    def _voted(self, rows: pl.DataFrame, *_: Any) -> None:
        self.seen["voters"].append(rows["instruction_id"].to_list())

    def _heard(self, event: str, details: tuple[Any, ...]) -> None:
        if (event == "socket.connect" and details[0].family != socket.AF_UNIX) or event == "socket.getaddrinfo":
            self.seen["talks"].append([event, str(details[1:])])
        elif event == "open" and isinstance(details[0], str) and details[2] & (os.O_WRONLY | os.O_RDWR):
            self._written(details[0])

    def _written(self, path: str) -> None:
        if not Path(path).absolute().is_relative_to(self._folder) and path != os.devnull:
            self.seen["files"].append(path)


def recorded(folder: Path) -> None:
    recorder = Recorder(folder)
    recorder.watch()
    interrupt_in_step(setattr, 2)
    commands = (("register",), ("run", PARTITION), ("run", PARTITION), ("sql", "from metrics"))
    recorder.write(codes=[command(*arguments) for arguments in commands])


class Panic(BaseException):
    """What some compiled libraries raise: no `Exception`."""


def say_everything(text: str) -> None:
    """Say a text in every way in which a library could."""
    print(text, "print")
    sys.stderr.write(f"{text} stderr\n")
    os.write(1, f"{text} descriptor 1\n".encode())
    os.write(2, f"{text} descriptor 2\n".encode())
    ctypes.CDLL(None).printf(f"{text} printf\n".encode())
    os.system(f"echo {text} child process")
    logging.getLogger("a.library").error("%s logging", text)
    dg.get_dagster_logger().error(f"{text} dagster logger")
    warnings.warn(f"{text} warning", stacklevel=1)
    thread = threading.Thread(target=int, args=(f"{text} thread",))
    thread.start()
    thread.join()
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(f"{text} temporary file")


SAYINGS = (
    *("print", "stderr", "descriptor 1", "descriptor 2", "printf", "child process", "logging", "dagster logger"),
    *("warning", "thread"),
)


def raise_chained(text: str) -> None:
    try:
        raise KeyError(f"{text} cause")
    except KeyError as cause:
        error = ValueError(f"{text} error")
        error.add_note(f"{text} note")
        raise error from cause


def raise_in_context(kind: type[BaseException], text: str) -> None:
    try:
        raise KeyError(f"{text} context")
    except KeyError:
        raise kind(f"{text} error")  # noqa: B904 (the context is the point)


def raise_from_duckdb(text: str) -> None:
    duckdb.sql(f"select cast('{text} error' as integer)").fetchall()


def raise_from_polars(text: str) -> None:
    pl.DataFrame({"text": [f"{text} error"]}).select(pl.col("text").cast(pl.Int64))


# Each way to fail, and whether the run counts as interrupted then.
FAILURES: dict[str, Callable[[str], None]] = {
    "chained": raise_chained,
    "panic": functools.partial(raise_in_context, Panic),
    "exit": functools.partial(raise_in_context, SystemExit),
    "interrupt": functools.partial(raise_in_context, KeyboardInterrupt),
    "polars": raise_from_polars,
    "duckdb": raise_from_duckdb,
}
# Each step fails with a chain of errors, by an interrupt, and in one of the other ways in turn.
ATTEMPTS = {
    step: ("chained", "interrupt", ("panic", "polars", "exit", "duckdb")[place % 4])
    for place, step in enumerate(PRIVATE_STEPS)
}


@contextmanager
def broken_step(step: str, failure: str) -> Iterator[None]:
    def fail(*_: Any, **__: Any) -> None:
        text = f"{MARK} {step} {failure}"
        say_everything(text)
        FAILURES[failure](text)

    repair = replace(PRIVATE_STEPS[step][1], fail)
    try:
        yield
    finally:
        repair()


def broken(folder: Path) -> None:
    """Fail each step in each of its ways, with budget for all of it; the steps above run as they are."""
    codes = {"register": command("register")}
    (corpus_id,) = open_ledger().state().registrations
    command("ledger", "raise", corpus_id, "10000", "--reason", "many failures")
    for step, (asset, _) in PRIVATE_STEPS.items():
        # Vectors were made while training failed.
        shutil.rmtree(data_home() / "private/artifacts" / asset, ignore_errors=True)
        for failure in ATTEMPTS[step]:
            with broken_step(step, failure):
                codes[f"{step} {failure}"] = command("run", PARTITION)
    (folder / "record" / "seen.json").write_text(json.dumps({"codes": codes}))


def replayed(folder: Path) -> None:
    from dp_assets.definitions import defs
    from dp_assets.pipeline.running import materialize, persistent_instance

    source = ReplayableSource(7)
    SystemRandomness.bits = lambda _, num_words: source.bits(num_words)  # type: ignore[method-assign]
    command("register")
    with persistent_instance() as instance:
        assets = [dg.AssetKey(name) for name in DOWN_TO_THE_HISTOGRAM]
        outcome = materialize(defs, instance, partition=PARTITION, assets=assets)
    (folder / "record" / "seen.json").write_text(json.dumps({"failed": outcome.failed, "requests": source.requests}))


def interrupted_backfill(folder: Path) -> None:
    interrupt_in_step(setattr, STEPS_OF_A_GENERATOR + 2)
    codes = [command("backfill", "--cohorts", "bucket-0") for _ in range(2)]
    (folder / "record" / "seen.json").write_text(json.dumps({"codes": codes}))


SCRIPTS = {
    "recorded": recorded,
    "broken": broken,
    "replayed": replayed,
    "interrupted_backfill": interrupted_backfill,
}

if __name__ == "__main__":
    SCRIPTS[sys.argv[1]](Path(sys.argv[2]))
