"""Values travel whole: few parameters, no settings taken apart into keywords, no default in privacy code."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_PARAMETERS = 8
WITHOUT_DEFAULTS = ("dp_assets/privacy/", "dp_assets/dpsgd/", "dp_assets/audit/")
CALLED_BY_TRANSFORMERS = "attend_within_rows"
"""It has the signature that the library asks of an attention function."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("dp_assets", "resources"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_filled_in_by_name(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is an asset or a command, whose parameters are filled in by Dagster or Typer and by nobody else."""
    is_asset = any("pipeline_asset" in ast.unparse(each) for each in function.decorator_list)
    return is_asset or "typer." in ast.unparse(function.args)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def defaults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len(function.args.defaults) + sum(each is not None for each in function.args.kw_defaults)


def test_no_function_takes_more_than_eight_parameters() -> None:
    long = {
        path
        for path, tree in sources()
        for each in functions(tree)
        if len(parameters(each)) > MOST_PARAMETERS and not is_filled_in_by_name(each)
    }
    assert long == set()


def test_no_parameter_of_privacy_code_has_a_default() -> None:
    with_defaults = {
        each.name
        for path, tree in sources()
        if path.startswith(WITHOUT_DEFAULTS)
        for each in functions(tree)
        if defaults(each)
    }
    assert with_defaults == {CALLED_BY_TRANSFORMERS}


def test_settings_are_never_taken_apart_into_keywords() -> None:
    taken_apart = [
        f"{path}:{call.lineno}"
        for path, tree in sources()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg is None and "model_dump" in ast.unparse(keyword.value)
    ]
    assert taken_apart == []


def test_the_key_of_a_partition_is_read_in_one_place() -> None:
    split = {path for path, tree in sources() if "split('|')" in ast.unparse(tree)}
    assert split == {"dp_assets/vocabulary.py"}
