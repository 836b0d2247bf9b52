"""`dp-instructions config`: whether a profile holds together, and what all of its settings are."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from dp_assets.assets._corpus import source_of
from dp_assets.cli._adapter import language_model_of, num_adapter_parameters
from dp_assets.cli._console import AsJson, out, print_json, refusals
from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.sources import FileSource
from dp_assets.profile_checks import plan_problems
from dp_assets.profiles import LoadedProfile, ProfileError, load, selected_name
from resources.annotator import Annotator, MissingKey
from resources.models import PACKAGED, Embedder, ModelUnavailable
from resources.problems import Problem
from resources.profile import Profile
from resources.zones import data_home

config_app = typer.Typer(no_args_is_help=True, help="Check a profile, or show all of its settings.")
Name = Annotated[str | None, typer.Argument(metavar="[FILE]", help="A .toml file or a named profile; default: yours.")]
PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@config_app.command("check")
@refusals
def check(
    file: Name = None,
    here: Annotated[
        bool, typer.Option("--here", help="Look for what this machine must have: source, models, keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Name everything that is wrong with a profile. Nothing is written, spent or read of the rows. Ends with 1 if any.

    With --here, models may be fetched, and of a source file the names and types of its columns are read.
    """
    name = file or selected_name()
    problems = problems_of(name, here=here)
    if as_json:
        found = [{"setting": problem.field, "problem": problem.what} for problem in problems]
        print_json({"profile": name, "valid": not problems, "problems": found})
    elif not problems:
        levels = ", ".join(load(name).profile.corpus.planned_levels)
        out.print(f"{name} is valid; it plans {levels or 'no levels'}", highlight=False, soft_wrap=True, markup=False)
    if problems:
        raise ProfileError(f"{name} has problems:", problems)


def problems_of(name: str, *, here: bool) -> list[Problem]:
    """Everything that is wrong with a profile; with `here`, also with this machine for it."""
    try:
        profile = load(name).profile
    except ProfileError as refusal:
        return list(refusal.problems)
    return [*plan_problems(profile), *(_missing_here(profile) if here else ())]


def _missing_here(profile: Profile) -> Iterator[Problem]:
    """What a run on this machine would miss."""
    endpoints = {"annotation.endpoint": profile.annotation.endpoint, "preferences.judge": profile.preferences.judge}
    needed: dict[str, Callable[[], object]] = {
        "corpus.source": partial(_require_source, profile),
        "language_model": partial(_require_language_model, profile),
        "sampling.engine": partial(_require_engine, profile),
        "embedder": Embedder(model=profile.embedder, device=profile.device).require_available,
        **{name: Annotator(name, endpoint, data_home()).api_key for name, endpoint in endpoints.items()},
    }
    for setting, require in needed.items():
        try:
            require()
        except MissingKey as failure:
            yield Problem(setting, failure.description or "")
        except (SourceError, ModelUnavailable, ValueError) as error:
            yield Problem(setting, str(error))


def _require_source(profile: Profile) -> None:
    """A file or a folder of files, opened as far as its columns. What only reading would show is left to the run.

    Raises:
      SourceError: it cannot be read as configured.
    """
    source = source_of(profile)
    if isinstance(source, FileSource):
        source.scan()


def _require_engine(profile: Profile) -> None:
    if profile.sampling.engine == "vllm":
        language_model_of(profile).require_vllm()


def _require_language_model(profile: Profile) -> None:
    """The tokenizer and the model's configuration, without its weights, and whether the adapter fits.

    Raises:
      ModelUnavailable: the model is neither on this machine nor fetchable.
      ValueError: the adapter does not fit the model.
    """
    if profile.language_model != PACKAGED:
        language_model_of(profile).load_tokenizer()
    num_adapter_parameters(profile)


@config_app.command("show")
@refusals
def show(file: Name = None, as_json: AsJson = False) -> None:
    """Print all settings as one TOML file, each with where it comes from. Passwords in addresses are left out."""
    loaded = load(file or selected_name())
    settings = without_passwords(loaded.profile.model_dump(mode="json"))
    if as_json:
        named = {name: {"value": value, "from": loaded.origin(name)} for name, value in leaves(settings)}
        print_json({"settings": named, "digest": loaded.profile.digest})
        return
    lines = [f'extends = "{loaded.base}"', *toml_lines(settings, loaded)]
    out.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def without_passwords(value: Any) -> Any:
    """The same settings, where what stands before the @ of an address is replaced."""
    match value:
        case str():
            return PASSWORD.sub("***", value)
        case list():
            return [without_passwords(item) for item in value]
        case dict():
            return {name: without_passwords(item) for name, item in value.items()}
        case _:
            return value


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; an empty table and one of the user's own names count as values."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and is_group(name, value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_group(name: str, value: Mapping[str, Any]) -> bool:
    """Whether a table is one of settings, and not a mapping such as the columns of a source."""
    return bool(value) and name not in ("columns", "extra_body")


def toml_lines(settings: Mapping[str, Any], loaded: LoadedProfile, prefix: str = "") -> Iterator[str]:
    """The lines of a table: first its own settings, then the tables in it. TOML has no null: those are comments."""
    groups = {name: value for name, value in settings.items() if isinstance(value, Mapping) and is_group(name, value)}
    for name, value in settings.items():
        if name not in groups:
            line = f"# {name} is not set" if value is None else f"{name} = {toml_value(value)}"
            yield f"{line}  # {loaded.origin(prefix + name)}"
    for name, value in groups.items():
        yield ""
        yield f"[{prefix}{name}]"
        yield from toml_lines(value, loaded, f"{prefix}{name}.")


def toml_value(value: Any) -> str:
    """A value as TOML, in one line."""
    match value:
        case Mapping():
            entries = (f"{json.dumps(name)} = {toml_value(item)}" for name, item in value.items() if item is not None)
            return f"{{ {', '.join(entries)} }}" if value else "{}"
        case list():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return json.dumps(value)
