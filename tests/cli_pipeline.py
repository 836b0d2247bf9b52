"""The command in a process of its own: a folder with a corpus, a profile file, a data folder and a Dagster home.

Profile and partitions are read when the code loads, and Dagster redirects the output of a process, so that whoever
changes the one or listens to the other needs another process. `tests.cli_scripts` says what else such a process may do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

from dp_assets.pipeline.running import DAGSTER_HOME
from dp_assets.privacy.labels import Zone
from dp_assets.settings.named import PROFILE_VARIABLE
from resources.ledger.homes import STATE_VARIABLE
from resources.ledger.ledger_resource import Ledger
from resources.storage.zones import HOME_VARIABLE
from tests.tiny_pipeline import OVERRIDES, write_corpus

ROOT = Path(__file__).parents[1]
# Where libraries put temporary files and caches, each a folder of the pipeline when a script runs in it.
ELSEWHERE = {
    "TMPDIR": "tmp",
    "POLARS_TEMP_DIR": "tmp/polars",
    "HOME": "user",
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "cache/huggingface",
    "MPLCONFIGDIR": "cache/matplotlib",
    "TORCH_HOME": "cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TRITON_CACHE_DIR": "cache/triton",
}


class CliPipeline:
    """A folder in which the command runs on the tiny profile."""

    def __init__(self, folder: Path, model: Path, **generator: Any) -> None:
        self.folder, self.home, self.dagster_home = folder, folder / "data", folder / "dagster"
        self.profile_file = folder / "tiny.toml"
        self.corpus_file = write_corpus(folder / "corpus.parquet")
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
            STATE_VARIABLE: str(self.folder / "state"),
        }

    @property
    def sandbox(self) -> dict[str, str]:
        """An environment in which every place to write lies in the pipeline."""
        places = {variable: str(self.folder / name) for variable, name in ELSEWHERE.items()}
        code = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return os.environ | self.environment | places | code

    @property
    def outside(self) -> list[Path]:
        """Every folder of the pipeline that is no part of the private zone; the source is private as well."""
        inside = {self.corpus_file, self.home, self.folder / "record"}
        return [*(path for path in self.folder.iterdir() if path not in inside), *self._public_parts_of_the_home()]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, started."""
        command, settings = [sys.executable, "-m", "dp_assets.cli", *arguments], os.environ | self.environment
        return subprocess.Popen(command, cwd=ROOT, env=settings, stdout=PIPE, stderr=PIPE, text=True)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, finished."""
        with self.start(*arguments) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run_script(self, script: str, *, umask: int, **environment: str) -> subprocess.CompletedProcess[str]:
        """A script of `tests.cli_scripts` in a process whose every folder lies in the pipeline."""
        for name in ("work", "record", *ELSEWHERE.values()):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "tests.cli_scripts", script, str(self.folder)],
            cwd=self.folder / "work",
            env=self.sandbox | environment,
            capture_output=True,
            text=True,
            umask=umask,
            check=False,
        )

    def _public_parts_of_the_home(self) -> list[Path]:
        return [path for path in self.home.iterdir() if path.name != Zone.PRIVATE]


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
    from dp_assets.dpsgd import training

    draw, calls = training._sample, iter(range(1, 1000))

    def interrupted_once(*args: Any, **kwargs: Any) -> Any:
        drawn = draw(*args, **kwargs)
        if next(calls) == step:
            raise KeyboardInterrupt
        return drawn

    replace(training, "_sample", interrupted_once)
