"""Check the profile in a statement: it holds only known settings of the right types, so that it carries no text."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from dp_assets.settings.profile import Profile
from dp_assets.statements.reading import canonical
from dp_assets.statements.verification import DIFFERENCES_NAMED, Finding, Outcome


def profile_finding(profile: Mapping[str, Any]) -> Finding:
    """Return whether a statement's profile holds known settings only. An earlier version may have fewer settings."""
    wrong = list(_unknown(Profile, profile, "configuration.profile"))[:DIFFERENCES_NAMED]
    return Finding("profile", Outcome.DIFFERS if wrong else Outcome.AGREES, "; ".join(wrong))


def _unknown(model: type[BaseModel], stated: Mapping[str, Any], name: str) -> Iterator[str]:
    for key, value in stated.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{name}.{key} is no setting of a profile"
        elif isinstance(value, dict) and (group := _group_of(field.annotation)) is not None:
            yield from _unknown(group, value, f"{name}.{key}")
        elif not _is_of_kind(field.annotation, value):
            yield f"{name}.{key} holds another kind of value"


def _group_of(annotation: Any) -> type[BaseModel] | None:
    """Return the group of settings that an annotation allows, or None."""
    allowed = (annotation, *get_args(annotation))
    return next(
        (candidate for candidate in allowed if isinstance(candidate, type) and issubclass(candidate, BaseModel)), None
    )


def _is_of_kind(annotation: Any, value: Any) -> bool:
    """Return whether a setting may hold this JSON value unconverted: 8 does not pass for 8.0, nor text for a number."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return canonical(adapter.dump_python(adapter.validate_python(value), mode="json")) == canonical(value)
    except (ValidationError, RecursionError):
        return False
