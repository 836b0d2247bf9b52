"""The way from the asset to a clipped gradient, as the README of the privacy argument lists it, is the code's."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HEADING = "### The way to a clipped gradient"
FIRST, LAST = "dp_generator", "_clip"


class Step(NamedTuple):
    """A function, and the names of those that it calls next."""

    file: str
    function: str
    calls: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called by: a special method by its class."""
        owner, _, name = self.function.rpartition(".")
        return owner if name.startswith("__") else name


def steps() -> list[Step]:
    section = (ROOT / "dp_assets/privacy/README.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    named = [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in rows]
    return [Step(file, function, tuple(calls)) for [file], [function], calls in named]


STEPS = steps()


def body_of(step: Step) -> ast.FunctionDef:
    """The definition of a function, or of a method by the name of its class."""
    found: ast.AST = ast.parse((ROOT / step.file).read_text())
    for name in step.function.split("."):
        kinds = ast.FunctionDef | ast.ClassDef
        [found] = [
            node
            for node in ast.iter_child_nodes(found)
            if isinstance(node, kinds) and node.name == name and not _is_overload(node)
        ]
    assert isinstance(found, ast.FunctionDef)
    return found


def _is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def called_in(function: ast.FunctionDef) -> set[str]:
    """The last names of everything that the body of a function calls."""
    calls = [node.func for part in function.body for node in ast.walk(part) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.function)
def test_each_function_calls_the_next_ones_by_their_names(step: Step) -> None:
    assert set(step.calls) <= called_in(body_of(step))


def test_each_function_is_called_by_one_before_it() -> None:
    assert STEPS[0].function == FIRST
    reached = set(STEPS[0].calls)
    for step in STEPS[1:]:
        assert step.name in reached, step.function
        reached |= set(step.calls)
    assert LAST in {step.name for step in STEPS}
