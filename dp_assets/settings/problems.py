"""Problems of a settings file, described for its author: which setting, what is wrong, what to do.

A message never quotes a text from the tables of endpoints and sources, nor a value of an unknown setting. A secret key
that was put in the wrong place would otherwise be printed and logged.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

QUOTED_LENGTH = 40
MAY_HOLD_SECRETS = frozenset({"endpoint", "judge", "source", "extra_body"})
BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
WANTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "path_type": "must be a path in quotes",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list in brackets",
    "list_type": "must be a list in brackets",
    "model_type": "must be a table of settings",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "missing": "is missing; add it",
}
UNQUOTED = ("int_type", "float_type", "bool_type")


@dataclass(frozen=True)
class Problem:
    """What is wrong with the setting `field` (a dotted name), and the remedy. `others` are settings it contradicts."""

    field: str
    what: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.field}: {self.what}"

    def concerns(self, names: Sequence[str]) -> bool:
        """Return whether one of these settings equals, contains or lies in one of the settings of the problem."""
        return any(_overlap(own, name) for own in (self.field, *self.others) for name in names)


def field_problems(settings: type[BaseModel], invalid: ValidationError) -> list[Problem]:
    """Return one problem for each setting that is invalid by itself."""
    return [_problem(settings, error) for error in invalid.errors(include_url=False)]


def setting_names(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings except tables. Settings of optional tables are included."""
    for name, field in settings.model_fields.items():
        group = table_of(field.annotation)
        if group is None:
            yield f"{prefix}{name}"
        else:
            yield from setting_names(group, f"{prefix}{name}.")


def table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table of settings that a type annotation names, which may be optional; None for other types."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def suggestion(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is most similar to a misspelled one, or None if none is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return close[0] if close else None


def _problem(settings: type[BaseModel], error: Mapping[str, Any]) -> Problem:
    place = tuple(str(part) for part in error["loc"])
    field = ".".join(place) or "profile"
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return Problem(field, _unknown(settings, place))
    if kind == "missing":
        return Problem(field, WANTED[kind])
    if kind == "value_error":
        return Problem(field, str(error["ctx"]["error"]))
    return Problem(field, _wanted(kind, error) + _instead(place, given))


def _wanted(kind: str, error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"{words} {context[name]:g}"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}"
    wanted = WANTED.get(kind, str(error["msg"]))
    return f"{wanted}, without quotes" if kind in UNQUOTED and isinstance(error.get("input"), str) else wanted


def _instead(place: Sequence[str], given: object) -> str:
    """Return words that quote the given value, if it is short and cannot be a secret."""
    if isinstance(given, bool):
        return f", not {str(given).lower()}"
    if isinstance(given, int | float):
        return f", not {given:g}"
    if isinstance(given, str) and len(given) <= QUOTED_LENGTH and not MAY_HOLD_SECRETS.intersection(place):
        return f", not {given!r}"
    return ""


def _unknown(settings: type[BaseModel], place: Sequence[str]) -> str:
    """Describe an unknown setting: the setting that was probably meant, the table where it belongs, or all settings."""
    table, *_ = _tables_on_the_way(settings, place[:-1])
    siblings, name = list(table.model_fields), place[-1]
    if (meant := suggestion(name, siblings)) is not None:
        return f"is no setting; did you mean {meant}?"
    elsewhere = [known for known in setting_names(settings) if known.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"is no setting here; {' or '.join(elsewhere)} is: what follows a [table] line belongs to that table"
    return f"is no setting; leave it out. There are: {', '.join(siblings)}"


def _tables_on_the_way(settings: type[BaseModel], place: Sequence[str]) -> list[type[BaseModel]]:
    """Return the tables that contain a setting, the innermost first."""
    tables = [settings]
    for part in place:
        field = tables[0].model_fields.get(part)
        inner = table_of(field.annotation) if field is not None else None
        if inner is not None:
            tables.insert(0, inner)
    return tables


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
