"""What all benchmarks share: sides timed in turns, ratios with their spread, peak memory, and stored results.

A benchmark is a module of this package with a docstring, whose first line `make bench` lists, and a `main()`:

    def main() -> None:
        given = options(__doc__).parse_args()
        seconds = interleave({"ours": ours, "theirs": theirs}, repeats=given.repeats)
        faster = ratio(seconds["theirs"], seconds["ours"])
        store("name", {"seconds": summaries(seconds), "theirs_over_ours": faster}, given)

Comparisons come from sides that ran in turns in one process, so that a machine which slows down slows all of them.
Stored results are JSON: `results` holds the figures, `environment` what they were measured on. Times are in seconds,
memory is in bytes.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
DISTRIBUTION = "dp-instructions"
TEXT_COLUMNS = ("text", "instruction")
OF_A_RUN = ("revision", "measured_at", "load_at_start", "processor_share_of_others")
RESAMPLES, CONFIDENCE = 2_000, 0.95
STOPPED = object()

Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of repeated measurements."""

    median: float
    lower_quartile: float
    upper_quartile: float
    repeats: int


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of paired ratios, and a bootstrap interval of the median at 95 %."""

    median: float
    lower_quartile: float
    upper_quartile: float
    lower_confidence: float
    upper_confidence: float
    repeats: int


@dataclass(frozen=True)
class Peak:
    """What a fresh process took: its peak resident memory in bytes, start and imports included, and its wall time."""

    bytes: int
    seconds: float


class BenchmarkFailed(RuntimeError):
    """A process that was to be measured failed."""


def interleave(
    sides: Mapping[str, Callable[[], object]], *, repeats: int, warmups: int = 1, finish: Callable[[], object] = bool
) -> Seconds:
    """Seconds of each call of each side, in `repeats` rounds of one call each; the i-th times of all sides are a pair.

    In twice as many rounds as there are sides, each stands at each place, and comes right after each other one within
    a round, equally often. `warmups` rounds before that are not counted. `finish` is called inside each timing: pass
    what waits for an accelerator.
    """
    seconds = {name: list[float]() for name in sides}
    for turn in range(-warmups, repeats):
        for name in _balanced_order(list(sides), turn):
            gc.collect()
            started = time.perf_counter()
            sides[name]()
            finish()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _balanced_order(names: Sequence[str], turn: int) -> list[str]:
    """Row `turn` of a square that is balanced for what one side leaves to the next (Williams 1949).

    Steps from the side that begins zigzag: 0, 1, -1, 2, -2 and so on. An odd number of sides needs their mirror image
    too, which comes every other time.
    """
    mirrored = -1 if turn // len(names) % 2 else 1
    steps = (mirrored * (-1) ** (place + 1) * ((place + 1) // 2) for place in range(len(names)))
    return [names[(turn + step) % len(names)] for step in steps]


def interleave_pieces(
    sides: Mapping[str, Callable[[], Iterator[object]]],
    *,
    repeats: int,
    warmups: int = 1,
    finish: Callable[[], object] = bool,
) -> Seconds:
    """`interleave` for calls that take long: each side is an iterator whose pieces take turns with those of the others.

    The speed of a machine then changes between two rounds of pieces and not within a pair. The order of each round of
    pieces is drawn anew, so that no side always comes after the same other one and finds what that leaves in caches
    and memory. A side's time in a round is the sum of its pieces.
    """
    names, seconds = list(sides), {name: list[float]() for name in sides}
    order = np.random.default_rng(0)
    for turn in range(-warmups, repeats):
        running, spent = {name: side() for name, side in sides.items()}, dict.fromkeys(names, 0.0)
        while running:
            for name in order.permutation(names).tolist():
                if name in running:
                    gc.collect()
                    started = time.perf_counter()
                    if next(running[name], STOPPED) is STOPPED:
                        del running[name]
                    finish()
                    spent[name] += time.perf_counter() - started
        for name in names if turn >= 0 else ():
            seconds[name].append(spent[name])
    return seconds


def summary(values: Sequence[float]) -> Summary:
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Summary(median, lower, upper, len(values))


def summaries(seconds: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    return {name: summary(values) for name, values in seconds.items()}


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """How the paired measurements of two sides relate; for throughputs of equal work, swap their times."""
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    drawn = np.random.default_rng(0).choice(ratios, size=(RESAMPLES, len(ratios)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(drawn, axis=1), [tail, 1 - tail]).tolist()
    middle = summary(ratios.tolist())
    return Ratio(middle.median, middle.lower_quartile, middle.upper_quartile, low, high, len(ratios))


def peak_memory(arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Peak:
    """Run a command in a fresh process and measure it; for Python code pass `python(...)`.

    A process inherits the peak of the one that starts it, so it is started by a small one, `benchmarks._watch`.

    Raises:
      BenchmarkFailed: the command exits with anything but 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "usage.json"
        watch = [sys.executable, "-m", "benchmarks._watch", str(report), *arguments]
        subprocess.run(watch, check=True, cwd=ROOT, env=None if environment is None else {**os.environ, **environment})
        usage = json.loads(report.read_text())
    if usage["status"]:
        raise BenchmarkFailed(f"exited with {usage['status']}: {' '.join(arguments)}")
    return Peak(usage["bytes"], usage["seconds"])


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter, for example `python("-m", "benchmarks.bins", "--stage", "votes")`."""
    return [sys.executable, *arguments]


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share; each adds its own sizes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Parquet file with a column text or instruction; else packaged texts")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument("--out", type=Path, help="where the results go; else docs/results/<name>.json")
    return parser


def texts(data: Path | None, *, limit: int | None = None) -> list[str]:
    """Real texts of mixed lengths, in an order of their own: those of `--data`, or of the packaged chit-chat corpus."""
    if data is None:
        from dp_assets.corpus.sources import ChitchatSource

        rows, column = ChitchatSource().scan(), "text"
    else:
        rows = pl.scan_parquet(data)
        column = next((name for name in TEXT_COLUMNS if name in rows.collect_schema().names()), "")
        if not column:
            raise SystemExit(f"--data: {data} has neither of the columns {' and '.join(TEXT_COLUMNS)}")
    found = rows.select(pl.col(column).drop_nulls().sample(fraction=1, shuffle=True, seed=0)).collect()
    return found[column].head(found.height if limit is None else limit).to_list()


def store(name: str, results: Mapping[str, Any], given: argparse.Namespace, *, in_parts: bool = False) -> Path:
    """Write results, options and environment as JSON, print them, and say where they are.

    A benchmark `in_parts` may run some of them at a time: each key of `results` is one, the others stay as they are
    stored, and `measured` says for each part when and beside what it was measured. The rest is that of the last run.
    """
    path: Path = given.out or RESULTS / f"{name}.json"
    chosen = {key: value for key, value in vars(given).items() if key not in ("out", "part") and value is not None}
    document: dict[str, Any] = {
        "benchmark": name,
        "options": {key: value.name if isinstance(value, Path) else value for key, value in chosen.items()},
        "results": results,
        "environment": environment(),
    }
    if in_parts:
        before = json.loads(path.read_text()) if path.exists() else {"results": {}, "measured": {}}
        now = {key: document["environment"][key] for key in OF_A_RUN}
        document["results"] = before["results"] | document["results"]
        document["measured"] = before["measured"] | dict.fromkeys(results, now)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, default=_plain, allow_nan=False)
    path.write_text(f"{text}\n")
    print(json.dumps(results, indent=2, default=_plain))
    print(f"stored in {path}", file=sys.stderr)
    return path


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code; the share of the processor that went to others should be near 0."""
    return {
        "revision": _revision(),
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "threads": _threads(),
        "accelerator": _accelerator(),
        "load_at_start": _LOAD_AT_START,
        "processor_share_of_others": _share_of_others(),
        "packages": _versions(),
    }


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in results")


def _revision() -> str:
    """The commit, with `+` where the tree differs from it other than in stored results."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results")
    return f"{commit}+" if commit and changed else commit


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()


def _threads() -> dict[str, Any]:
    """Threads asked for in the environment, and those of torch where it is loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    asked: dict[str, Any] = {name: os.environ[name] for name in names if name in os.environ}
    torch = sys.modules.get("torch")
    return asked if torch is None else asked | {"torch": torch.get_num_threads()}


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    """The versions of what the project depends on, as far as it is installed."""
    declared = importlib.metadata.requires(DISTRIBUTION) or []
    names = sorted({re.split(r"[<>=~!\[; ]", each)[0] for each in declared if "extra ==" not in each})
    installed = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor_times() -> tuple[float, float, float]:
    """Seconds so far: the wall clock, all processors busy, and this process with the children that it waited for."""
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    try:
        user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    except (OSError, ValueError):
        return time.monotonic(), own, own
    return time.monotonic(), (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), own


def _share_of_others() -> float:
    """Since this module was loaded: the part of all cores' time that other processes took."""
    wall, busy, own = (now - then for now, then in zip(_processor_times(), _TIMES_AT_START, strict=True))
    return round(max(0.0, busy - own) / (wall * (os.cpu_count() or 1)), 3)


_LOAD_AT_START = _load()
_TIMES_AT_START = _processor_times()
