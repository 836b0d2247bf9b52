"""The command in a process of its own: a folder with a corpus, a profile file, a data folder and a Dagster home.

Profile and partitions are read when the code loads, and Dagster redirects the output of a process, so that whoever
changes the one or listens to the other needs another process. Run as a module, this file runs the command with
functions broken in a chosen way.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dp_assets.privacy.labels import Zone
from dp_assets.profiles import PROFILE_VARIABLE
from dp_assets.running import DAGSTER_HOME
from resources.ledger import Ledger
from resources.zones import HOME_VARIABLE
from tests.pipeline import OVERRIDES, write_corpus

ROOT = Path(__file__).parents[1]
SECRET, SECRET_USER = "zq4711kumquat", "user-extra"
INTERRUPTED_TRAINING = "interrupt the second step of private training"
QUOTED = f"ValueError: cannot handle the row {SECRET!r}"
# A function that each asset hands private rows to.
QUOTING_ERRORS = {
    "real_instructions": "dp_assets.assets.real_instructions:prepare",
    "dp_generator": "dp_assets.generation.generator:encode_instruction",
    "real_embeddings": "resources.models:Embedder.encode_alone",
    "dp_histogram": "dp_assets.selection.release:exact_votes",
}


class Household:
    """A folder in which the command runs on the tiny profile."""

    def __init__(self, folder: Path, model: Path, **generator: Any) -> None:
        self.folder, self.home, self.dagster_home = folder, folder / "data", folder / "dagster"
        self.profile_file = folder / "tiny.toml"
        write_corpus(folder / "corpus.parquet", extra_text=f"what does {SECRET} mean to you?")
        self.profile_file.write_text(profile_text(str(model), **generator))

    @property
    def ledger(self) -> Ledger:
        return Ledger(private_root=str(self.home / Zone.PRIVATE))

    @property
    def environment(self) -> dict[str, str]:
        return {
            PROFILE_VARIABLE: str(self.profile_file),
            HOME_VARIABLE: str(self.home),
            DAGSTER_HOME: str(self.dagster_home),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: str, broken: Sequence[str] = ()) -> subprocess.Popen[str]:
        """The command, started."""
        module = ["tests.household", ",".join(broken), *arguments] if broken else ["dp_assets.cli", *arguments]
        command, settings = [sys.executable, "-m", *module], os.environ | self.environment
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=settings, stdout=pipe, stderr=pipe, text=True)

    def command(self, *arguments: str, broken: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """The command, finished."""
        with self.start(*arguments, broken=broken) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def profile_text(model: str, **generator: Any) -> str:
    """The tiny profile as TOML that extends the demo and reads the corpus beside it."""
    settings = {**OVERRIDES, "generator": OVERRIDES["generator"] | generator, "language_model": model}
    source = '{ kind = "file", path = "corpus.parquet", columns = { text = "prompt", user_id = "user" } }'
    lines = ["extends = 'demo'"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, dict)]
    lines += ["[corpus]", f"source = {source}", "min_words = 2", "train_fraction = 0.8"]
    for name, table in settings.items():
        if isinstance(table, dict):
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines)


def interrupt_in_step(replace: Callable[[Any, str, Any], None], step: int) -> None:
    """Private training is interrupted once, in this step (counted from 1), after the units of the step were drawn."""
    from dp_assets.generation import dpsgd

    clipped_sum, calls = dpsgd.clipped_sum, iter(range(1, 1000))

    def interrupted_once(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == step:
            raise KeyboardInterrupt
        return clipped_sum(*args, **kwargs)

    replace(dpsgd, "clipped_sum", interrupted_once)


def quote_the_secret(*_: Any, **__: Any) -> None:
    raise ValueError(QUOTED.removeprefix("ValueError: "))


def break_function(what: str) -> None:
    if what == INTERRUPTED_TRAINING:
        interrupt_in_step(setattr, 2)
        return
    module, _, path = QUOTING_ERRORS[what].partition(":")
    *owner, name = path.split(".")
    setattr(resolve_name(f"{module}:{'.'.join(owner)}"), name, quote_the_secret)


def main(broken: str, *arguments: str) -> None:
    """Run the command with functions broken, which are named with commas between them."""
    from dp_assets import cli

    for what in broken.split(","):
        break_function(what)
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
