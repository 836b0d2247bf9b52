"""`dp-instructions config`: check whether a profile is consistent, and show all of its settings."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from dp_assets.cli._adapter import language_model_of
from dp_assets.cli._console import AsJson, err, out, print_json, refusals
from dp_assets.pipeline.corpus import require_source
from dp_assets.privacy.labels import NO_DP
from dp_assets.settings.consistency import plan_problems
from dp_assets.settings.named import LoadedProfile, ProfileError, load, selected_name
from dp_assets.settings.problems import Problem
from dp_assets.settings.profile import Profile
from dp_assets.stages.public_checks import (
    FAILED,
    PASSED,
    PublicCheck,
    Tell,
    found_by,
    generator_check,
    model_checks,
    say_nothing,
)
from resources.models.loaders import Embedder
from resources.storage.zones import data_home

config_app = typer.Typer(no_args_is_help=True, help="Check a profile, or show all of its settings.")
Name = Annotated[str | None, typer.Argument(metavar="[FILE]", help="A .toml file or a named profile; default: yours.")]
CHECKS = {
    "settings": "settings",
    "plans": "plans: each level has a noise that meets it",
    "corpus.source": "corpus.source: it opens, and has the mapped columns",
    "home": "home: the data folder has room",
    "device": "device: torch can use it",
    "embedder": "embedder: it loads, and its vectors depend on one text each",
    "language_model": "language_model: it loads",
    "sampling": "sampling: texts can be drawn",
    "annotation": "annotation: the model can answer",
    "sft": "sft: one step on public text",
    "reward": "reward: one step on public text",
    "rlhf": "rlhf: one step on public text",
    "generator": "generator: clipped gradients of public texts",
}
"""What each check examines; endpoints are listed under their own settings."""
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
    """Name everything that is wrong with a profile, and end with 1 if anything is. Writes, spends and reads no rows.

    With --here, the names and types of the source's columns are read, endpoints are asked whether they answer, and
    models are downloaded (the packaged one is converted) and tried in one tiny step of every stage on public text. That
    takes minutes. Each check is named on standard error when it begins and ends.
    """
    name = file or selected_name()
    checked: list[str] = []

    def tell(what: str, outcome: str) -> None:
        if outcome == PASSED:
            checked.append(what)
        if here:
            err.print(f"{outcome}: {CHECKS.get(what, what)}", markup=False)

    problems = problems_of(name, here=here, tell=tell)
    if as_json:
        rows = [{"setting": problem.field, "problem": problem.what} for problem in problems]
        print_json({"profile": name, "valid": not problems, "problems": rows, "checked": checked})
    elif not problems:
        levels = ", ".join(load(name).profile.corpus.planned_levels)
        out.print(f"{name} is valid; it plans {levels or 'no levels'}", markup=False)
        out.print(f"checked: {', '.join(checked)}")
        if not here:
            out.print("not checked: source, models and keys of this machine, which --here looks for")
    if problems:
        raise ProfileError(f"{name} has problems:", problems)


def problems_of(name: str, *, here: bool, tell: Tell = say_nothing) -> list[Problem]:
    """Return everything that is wrong with a profile; with `here`, also what this machine lacks for it.

    `tell` is called for each check. If `load` refuses the settings, its problems are the only ones returned.
    """
    try:
        profile = load(name).profile
    except ProfileError as refusal:
        tell("settings", FAILED)
        return list(refusal.problems)
    tell("settings", PASSED)
    planned = list(plan_problems(profile))
    tell("plans", FAILED if planned else PASSED)
    return [*planned, *(_missing_here(profile, tell) if here else ())]


def _missing_here(profile: Profile, tell: Tell) -> Iterator[Problem]:
    """Yield what a run on this machine would lack: the problems of each stage's public checks, and of the source."""
    from dp_assets.stages.preflight import endpoint_checks  # loads partitions, which need a profile that is valid

    language_model, embedder = language_model_of(profile), Embedder(model=profile.embedder, device=profile.device)
    level, home = next(iter(profile.corpus.planned_levels), NO_DP), data_home()
    of_models = model_checks(profile, language_model, embedder, home, level=level)
    source = PublicCheck("corpus.source", ("real_instructions",), partial(require_source, profile))
    generator = generator_check(profile, language_model, level=level)
    yield from found_by([source, *endpoint_checks(profile, home), *of_models, generator], tell=tell)


@config_app.command("show")
@refusals
def show(file: Name = None, as_json: AsJson = False) -> None:
    """Print all settings as one TOML file, each with its origin. Passwords in addresses are left out."""
    loaded = load(file or selected_name())
    settings = without_passwords(loaded.profile.model_dump(mode="json"))
    if as_json:
        named = {name: {"value": value, "from": loaded.origin(name)} for name, value in leaves(settings)}
        print_json({"settings": named, "digest": loaded.profile.digest})
        return
    lines = [f'extends = "{loaded.base}"', *toml_lines(settings, loaded)]
    out.print("\n".join(lines), markup=False)


def without_passwords(value: Any) -> Any:
    """Return the same settings with the user information before the @ of an address replaced."""
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
    """Yield dotted names and values. An empty table, or a table with the user's own names, counts as a value."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and is_group(name, value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_group(name: str, value: Mapping[str, Any]) -> bool:
    """Return whether a table holds settings, and is not a mapping such as the columns of a source."""
    return bool(value) and name not in ("columns", "extra_body")


def toml_lines(settings: Mapping[str, Any], loaded: LoadedProfile, prefix: str = "") -> Iterator[str]:
    """Yield the lines of a table: its own settings, then its tables. TOML has no null, so those become comments."""
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
    """Return a value as TOML on one line."""
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
