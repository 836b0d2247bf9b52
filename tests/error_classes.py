"""The product's own errors, found in the source, so that nothing has to be imported to know them."""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT_IN = frozenset(["Exception", "Failure", "KeyError", "OSError", "RuntimeError", "TypeError", "ValueError"])


@cache
def sources() -> dict[str, ast.Module]:
    """Each module of the product by its path."""
    files = [path for folder in ("dp_assets", "resources") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def classes() -> Iterator[tuple[str, frozenset[str]]]:
    """Each class with the last names of its bases."""
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield node.name, frozenset(last_name(base) for base in node.bases)


def below(names: Collection[str] = BUILT_IN) -> frozenset[str]:
    """The classes that derive from one of `names`, however far."""
    bases, found = dict(classes()), set(names)
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return frozenset(found & bases.keys() - set(names))


def last_name(node: ast.AST) -> str:
    """The last name of a dotted one, whatever is called or indexed on the way."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
