"""Ratios of newly measured figures to the last stored ones.

The last stored results of a benchmark are those in docs/results at a revision of the repository. A list of plain
numbers is compared by its median. A ratio says nothing of better or worse: that depends on the figure.
"""

import json
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, ROOT

SAME = ("processor", "cores", "memory_bytes", "accelerator", "python", "threads", "packages")


class NoStoredResults(ValueError):
    """A benchmark has no results to compare with."""


def stored(name: str, *, revision: str) -> dict[str, Any]:
    """The results of a benchmark at a revision.

    Raises:
      NoStoredResults: there are none.
    """
    place = f"{revision}:{(RESULTS / f'{name}.json').relative_to(ROOT)}"
    found = subprocess.run(["git", "show", place], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise NoStoredResults(f"{place} does not exist; run the benchmark and commit its results first")
    content: dict[str, Any] = json.loads(found.stdout)
    return content


def figures(results: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(path, number) of every number in results, depth first; yes and no are no numbers."""
    if isinstance(results, bool):
        return
    if isinstance(results, int | float):
        yield path, float(results)
    elif isinstance(results, Mapping):
        for key, value in results.items():
            yield from figures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(results, list):
        if results and all(isinstance(each, int | float) for each in results):
            yield path, statistics.median(results)
        else:
            for number, value in enumerate(results):
                yield from figures(value, f"{path}[{number}]")


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(path, former figure, new figure) for every path in either of two stored documents."""
    old, new = dict(figures(before["results"])), dict(figures(after["results"]))
    return [(path, old.get(path), new.get(path)) for path in dict.fromkeys((*old, *new))]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """In what the two were measured differently, so that their ratio is not about the code alone."""
    there, here = before["environment"], after["environment"]
    lines = [f"{key}: {there.get(key)} -> {here.get(key)}" for key in SAME if there.get(key) != here.get(key)]
    if before["options"] != after["options"]:
        lines.append(f"options: {before['options']} -> {after['options']}")
    return lines


def show(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Print the comparison of two stored documents of one benchmark."""
    revisions = (document["environment"]["revision"] for document in (before, after))
    table = Table("figure", *revisions, "ratio", title=name)
    for path, old, new in compared(before, after):
        table.add_row(path, _number(old), _number(new), f"{new / old:.3f}" if old and new is not None else "")
    Console().print(table)
    for line in differences(before, after):
        print(f"measured differently: {line}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
