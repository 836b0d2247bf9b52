"""Which kinds of errors may leave a step that reads private rows as they are; all others become one constant message.

A further kind is a decision about privacy: its messages must not depend on a row. So the list stands here once more.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from dp_assets.generation import generator

ROOT = Path(__file__).parents[1]
TOLD = {
    "dp_assets/stages/preview.py": {"*(SourceError, CohortError, *shown_to_owner)"},  # the last on their terminal only
    "dp_assets/assets/dp_generator.py": {"ModelUnavailable", "NotReady", "*generator.PUBLIC_ERRORS"},
    "dp_assets/assets/dp_histogram.py": {"EmbeddersDiffer", "NotReady"},
    "dp_assets/assets/real_embeddings.py": {"UnstablePreparation", "ModelUnavailable"},
    "dp_assets/assets/real_instructions.py": {"*(SourceError, CohortError, UnstablePreparation)"},
    "dp_assets/assets/restricted_report.py": set(),
    "resources/private/erasure.py": set(),
    "resources/private/private_step.py": {"*public"},
    "resources/storage/stores.py": {"OtherContent"},
}
OF_THE_GENERATOR = {
    "NoSpareStep",
    "RoundingTooCoarse",
    "RowsInteract",
    "StaleCheckpoint",
    "TrainingInProgress",
    "UnclippableParameter",
    "UnfitModel",
}


def told(tree: ast.Module) -> Iterator[str]:
    """What is passed as public to each private step of a module; a name of the module stands for what it is set to."""
    nodes = list(ast.walk(tree))
    values = {
        target.id: ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("private_step", "private_errors"):
            for argument in node.args[1:]:
                starred = isinstance(argument, ast.Starred)
                name = ast.unparse(argument.value if isinstance(argument, ast.Starred) else argument)
                yield "*" * starred + values.get(name, name)


def test_only_these_errors_are_told_as_they_are() -> None:
    modules = [path for folder in ("dp_assets", "resources") for path in sorted((ROOT / folder).rglob("*.py"))]
    steps = [path for path in modules if "private_step(" in path.read_text() or "private_errors(" in path.read_text()]
    found = {str(path.relative_to(ROOT)): set(told(ast.parse(path.read_text()))) for path in steps}
    assert {place: kinds for place, kinds in found.items() if not place.endswith("private_log.py")} == TOLD
    assert {kind.__name__ for kind in generator.PUBLIC_ERRORS} == OF_THE_GENERATOR
