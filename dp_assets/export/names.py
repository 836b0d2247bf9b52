"""Replaces paths of this machine by public names.

A base model or an embedder may be configured as a folder, whose path is useless to the recipient of an export. The user
must give the base model a name under which others can load it. Of every other path the last part is kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dp_assets.export.parts import ExportRefused
from dp_assets.statements.declared import model_name

Names = Mapping[str, str]


def public_names(statement: Mapping[str, Any], base_model: str | None) -> dict[str, str]:
    """Return the public name of each path in a statement.

    Args:
      statement: the statement to export.
      base_model: the user's name for a base model that is a folder here.

    Raises:
      ExportRefused: the base model is a folder and has no name, or it is not a folder and was given one.
    """
    stated = statement["base_model"]
    if not is_local(stated):
        if base_model is not None:
            raise ExportRefused(f"--base-model is for a base model that is a folder, and this one is {stated}")
        return _last_parts(statement)
    if base_model is None or is_local(base_model):
        raise ExportRefused(
            "the base model is a folder of this machine, which nobody else can load; say with --base-model NAME under"
            " which id others find it"
        )
    spellings = {text: base_model for text in _strings(statement["configuration"]) if model_name(text) == stated}
    return {**_last_parts(statement), **spellings, stated: base_model}


def is_local(name: str) -> bool:
    """Return whether the name of a model is a path on this machine, and not an id."""
    return Path(name).is_absolute() or name.startswith(".") or Path(name).exists()


def renamed(value: Any, names: Names) -> Any:
    """Return a JSON value in which every path is replaced by its public name."""
    match value:
        case str():
            return names.get(value, value)
        case dict():
            return {key: renamed(item, names) for key, item in value.items()}
        case list():
            return [renamed(item, names) for item in value]
        case _:
            return value


def _last_parts(value: Any) -> dict[str, str]:
    return {path: Path(path).name for path in _strings(value) if Path(path).is_absolute() and Path(path).name}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)
