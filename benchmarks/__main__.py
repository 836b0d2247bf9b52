"""Lists the benchmarks, runs them, and compares their results with the last stored ones.

python -m benchmarks                            list
python -m benchmarks run NAME [OPTION...]       one benchmark, or `all`; its --help says which options there are
python -m benchmarks compare [NAME...]          results in docs/results against those of the last commit
python -m benchmarks compare NAME --rerun       a new run against them, which stores nothing
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _compare
from benchmarks.harness import RESULTS, ROOT

HARNESS = "harness"
ALL = "all"


def benchmarks() -> dict[str, str]:
    """What each benchmark is about, by name; nothing is imported."""
    files = sorted(file for file in Path(__file__).parent.glob("*.py") if file.stem[0] != "_" and file.stem != HARNESS)
    return {file.stem: (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0] for file in files}


def run(name: str, arguments: list[str]) -> int:
    """The exit status of one benchmark in a process of its own."""
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, check=False).returncode


def compare(name: str, *, rerun: bool, revision: str, arguments: list[str]) -> None:
    """Print how new results of a benchmark relate to those of a revision; says so where either are missing."""
    try:
        before = _compare.stored(name, revision=revision)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"{name}.json" if rerun else RESULTS / f"{name}.json"
            if rerun and run(name, [*arguments, "--out", str(out)]):
                raise SystemExit(f"{name} failed")
            _compare.show(name, before, json.loads(out.read_text()))
    except (_compare.NoStoredResults, FileNotFoundError) as error:
        print(f"{name}: {error}", file=sys.stderr)


def _parser(known: dict[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="the benchmarks, one a line (the default)")
    running = commands.add_parser("run", help="run a benchmark; further options go to it", add_help=False)
    running.add_argument("name", choices=[*known, ALL])
    comparing = commands.add_parser("compare", help="show ratios against the last stored results")
    comparing.add_argument("name", nargs="?", choices=list(known), help="else every benchmark with results")
    comparing.add_argument("--rerun", action="store_true", help="run it first; further options go to it")
    comparing.add_argument("--revision", default="HEAD", help="whose results to compare with; else the last commit's")
    return parser


def main() -> None:
    known = benchmarks()
    parser = _parser(known)
    given, further = parser.parse_known_args()
    if further and not (given.command == "run" or (given.command == "compare" and given.rerun)):
        parser.error(f"unknown options: {' '.join(further)}")
    if given.command == "run":
        raise SystemExit(max(run(name, further) for name in (known if given.name == ALL else [given.name])))
    if given.command == "compare":
        if given.rerun and given.name is None:
            parser.error("--rerun needs the name of a benchmark")
        for name in [given.name] if given.name else [name for name in known if (RESULTS / f"{name}.json").exists()]:
            compare(name, rerun=given.rerun, revision=given.revision, arguments=further)
        return
    for name, line in known.items():
        print(f"{name:<20} {line}")


if __name__ == "__main__":
    main()
