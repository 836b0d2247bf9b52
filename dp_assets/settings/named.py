"""Profiles from TOML files, and the profile that this process uses.

`DP_INSTRUCTIONS_PROFILE` names a packaged profile (`demo.toml` and `paper.toml` in this folder) or a file of the user.
Such a file starts from a packaged profile and overrides single settings:

    extends = "demo"
    [corpus]
    snapshot = "2026-11"
    source = { kind = "file", path = "instructions.parquet", columns = { text = "prompt", user_id = "user" } }

This module is in a layer below the assets, because the partitions of the assets (their cohorts) come from the profile.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dp_assets.privacy.errors import PublicError
from dp_assets.settings.consistency import contradictions, plan_problems
from dp_assets.settings.problems import Problem, field_problems, suggestion
from dp_assets.settings.profile import Profile

PROFILE_VARIABLE = "DP_INSTRUCTIONS_PROFILE"
NAMED = ("demo", "paper")
DEFAULT = "demo"


class ProfileError(PublicError, ValueError):
    """A profile does not exist or is not valid. The message names every mistake; `problems` lists them."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems) or (Problem("profile", message),)


@dataclass(frozen=True)
class LoadedProfile:
    """A profile and its origin.

    - `base` is the packaged profile from which it starts.
    - `file` is the user's file, or None for a packaged profile.
    - `own` holds the dotted names of the settings that the file itself sets.
    """

    profile: Profile
    base: str
    file: Path | None = None
    own: frozenset[str] = frozenset()

    def origin(self, setting: str) -> str:
        """Return the file or the packaged profile that a setting's value comes from."""
        of_file = any(f"{setting}.".startswith(f"{name}.") for name in self.own)
        return str(self.file) if of_file else self.base


@cache
def selected_profile() -> Profile:
    """Return the profile that the environment names, or `demo` if it names none.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    return load_profile(selected_name())


def selected_name() -> str:
    """Return the profile name or file in the environment, or `demo` if there is none."""
    return os.environ.get(PROFILE_VARIABLE, DEFAULT)


def load_profile(name: str) -> Profile:
    """Return a packaged profile, or the profile of a user's TOML file.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    return load(name).profile


def load(name: str) -> LoadedProfile:
    """Return a packaged profile, or the profile of a user's TOML file, with the origin of its settings.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    if name in NAMED:
        return LoadedProfile(_packaged(name), base=name)
    if not name.endswith(".toml") or not Path(name).is_file():
        raise ProfileError(
            f"the profile {name!r} is neither one of {', '.join(NAMED)} nor a readable .toml file{_hint(name)};"
            f" {PROFILE_VARIABLE} names one"
        )
    return _from_toml(Path(name))


@cache
def _packaged(name: str) -> Profile:
    """Return a packaged profile. It extends no other, and its source's path is relative to the working directory."""
    path = Path(__file__).with_name(f"{name}.toml")
    return _checked(path, _parsed(path), base={})


def _from_toml(path: Path) -> LoadedProfile:
    overrides = _parsed(path)
    extends = str(overrides.pop("extends", DEFAULT))
    if extends not in NAMED:
        raise ProfileError(f"{path}: `extends` must be one of {', '.join(NAMED)}{_hint(extends)}")
    base = _packaged(extends).model_dump(mode="json")
    settings = _merged(base, {"name": path.stem} | overrides)
    _resolve_paths(settings, path.parent)
    profile = _checked(path, settings, base)
    return LoadedProfile(profile, base=extends, file=path, own=frozenset(_own_names({"name": ""} | overrides)))


def _checked(path: Path, settings: dict[str, Any], base: Mapping[str, Any]) -> Profile:
    """Return the profile of these settings, some of which come from the file `path`.

    Raises:
      ProfileError: a setting is invalid, or contradicts another one.
    """
    try:
        profile = _validated(settings)
        problems = contradictions(profile)
    except ValidationError as invalid:
        problems = _all_problems(settings, base, invalid)
    if problems:
        noun = "setting" if len(problems) == 1 else "settings"
        raise ProfileError(f"{path} has {len(problems)} invalid {noun}:", problems)
    return profile


def _hint(name: str) -> str:
    """Return a hint at the packaged profile that a misspelled name may mean, or an empty text."""
    meant = suggestion(name, list(NAMED))
    return f" (did you mean {meant}?)" if meant else ""


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path} is not valid TOML: {error}; texts stand in quotes, lists in brackets") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} cannot be read as a text in UTF-8 ({type(error).__name__})") from error


def _validated(settings: Mapping[str, Any]) -> Profile:
    """Return the profile, validated strictly: a number must not be in quotes, and `true` is not accepted for 1."""
    return Profile.model_validate_json(json.dumps(settings, default=str), strict=True)


def _all_problems(settings: dict[str, Any], base: Mapping[str, Any], invalid: ValidationError) -> list[Problem]:
    """Return the problems of single settings and the contradictions between the other settings.

    To find contradictions, each invalid setting, or its whole table, is replaced by the value of the base.
    Contradictions that involve a replaced setting are not counted.
    """
    problems = field_problems(Profile, invalid)
    wrong = [problem.field for problem in problems]
    repaired = deepcopy(settings)
    for name in wrong:
        _put_back(repaired, base, name.split("."))
    try:
        profile = _validated(repaired)
    except ValidationError as still:
        broken = {str(error["loc"][0]) for error in still.errors() if error["loc"]}
        try:
            profile = _validated({name: base[name] if name in broken else repaired[name] for name in base})
        except ValidationError:
            return problems
        wrong += broken
    found = [*contradictions(profile), *plan_problems(profile)]
    return [*problems, *(problem for problem in found if not problem.concerns(wrong))]


def _put_back(settings: dict[str, Any], base: Mapping[str, Any], place: Sequence[str]) -> None:
    """Replace the setting at `place`, or the innermost one on the path to it that is no table, by the base's value.

    It is removed if the base has no such setting.
    """
    name, *inner = place
    if inner and isinstance(settings.get(name), dict):
        below = base.get(name)
        _put_back(settings[name], below if isinstance(below, Mapping) else {}, inner)
    elif name in base:
        settings[name] = base[name]
    else:
        settings.pop(name, None)


def _own_names(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings in a file. A source is replaced as a whole, so it is one setting."""
    for name, value in overrides.items():
        if isinstance(value, Mapping) and name != "source":
            yield from _own_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with settings replaced. A source is replaced as a whole, because its fields belong together."""
    merged = dict(base)
    for name, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and name != "source"
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def _resolve_paths(settings: dict[str, Any], folder: Path) -> None:
    """Resolve relative paths of a profile in place. They are relative to the file, not to the working directory."""
    corpus = settings.get("corpus")
    source = corpus.get("source") if isinstance(corpus, dict) else None
    for group in (source, settings.get("annotation"), settings.get("preferences")):
        if isinstance(group, dict) and isinstance(group.get("path"), str):
            group["path"] = str((folder / group["path"]).resolve())
