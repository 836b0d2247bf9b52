"""Named profiles, and the one that this process uses.

`DP_INSTRUCTIONS_PROFILE` names a profile of this module or a TOML file. A file starts from a named profile and
overrides single settings:

    extends = "demo"
    [corpus]
    snapshot = "2026-11"
    source = { kind = "file", path = "instructions.parquet", columns = { text = "prompt", user_id = "user" } }

Profiles lie below the assets, because the partitions of the assets (their cohorts) come from the profile.
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

from dp_assets.alignment.settings import (
    AdapterTraining,
    AnnotationSettings,
    PreferenceSettings,
    RewardSettings,
    RlhfSettings,
)
from dp_assets.corpus.settings import CorpusSettings, SourceSettings
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.generation.settings import GeneratorSettings, SamplingSettings
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.selection.settings import SelectionSettings, VotesSettings
from dp_assets.settings.consistency import contradictions, plan_problems
from dp_assets.settings.problems import Problem, field_problems, suggestion
from dp_assets.settings.profile import Profile

PROFILE_VARIABLE = "DP_INSTRUCTIONS_PROFILE"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


class ProfileError(PublicError, ValueError):
    """A profile that does not exist or does not validate; every mistake is named at once, `problems` lists them."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems) or (Problem("profile", message),)


DEMO = Profile(
    name="demo",
    corpus=CorpusSettings(
        source=SourceSettings(kind="chitchat"),
        unit=PrivacyUnit.USER,
        max_rows_per_unit=2,
        min_words=5,
        max_words=60,
        max_characters=400,
        train_fraction=0.95,
        delta=1e-5,
        budget_epsilon=8.0,
        planned_levels=("eps-8",),
    ),
    # About a thousand senders: an adapter of 30,720 parameters in the last blocks, and a clip norm at the scale of the
    # gradients, keep the noise of a step near its signal (docs/decisions.md).
    generator=GeneratorSettings(
        prompt="user_turn",
        rank=2,
        alpha=4,
        target_modules=("q_proj", "v_proj"),
        last_layers=8,
        sampling_probability=0.25,
        expected_batch_size=256,
        steps=6,
        spare_steps=2,
        l2_clip_norm=0.02,
        learning_rate=2.5e-2,
        max_tokens=40,
        loss_normaliser=40,
        tokens_per_micro_batch=512,
        dtype="auto",
    ),
    votes=VotesSettings(num_bins=24, noise_stddev=4.0),
    sampling=SamplingSettings(
        prompt="system_user_turn", num_samples=384, max_new_tokens=32, temperature=1.0, top_p=0.95, batch_size=64
    ),
    selection=SelectionSettings(target_size=300, top_up_samples=128),
    annotation=AnnotationSettings(max_new_tokens=40, temperature=0.0, top_p=1.0, batch_size=64),
    sft=AdapterTraining(
        rank=8,
        alpha=16,
        target_modules=ATTENTION,
        learning_rate=3e-4,
        batch_size=8,
        epochs=1,
        max_tokens=128,
        seed=4,
        max_rows=64,
    ),
    preferences=PreferenceSettings(num_pairs=96, hot_temperature=1.6),
    reward=RewardSettings(
        rank=8,
        alpha=16,
        target_modules=ATTENTION,
        learning_rate=1e-3,
        batch_size=4,
        epochs=1,
        max_tokens=128,
        held_out_fraction=0.2,
        seed=6,
    ),
    rlhf=RlhfSettings(
        method="rloo",
        learning_rate=1e-4,
        steps=3,
        prompts_per_step=4,
        num_generations=2,
        max_prompt_tokens=64,
        max_new_tokens=32,
        temperature=1.0,
        kl_coefficient=0.05,
        evaluation_prompts=16,
        evaluations=3,
    ),
    report=ReportSettings(baseline_samples=128, examples=5, mauve_buckets=40),
)

# The published setting (paper section 5 and released commands); needs a GPU and a corpus of about 180,000 instructions.
PAPER = Profile(
    name="paper",
    corpus=CorpusSettings(
        source=SourceSettings(kind="file", path=Path("instructions.parquet"), columns={"text": "text"}),
        unit=PrivacyUnit.INSTRUCTION,
        max_rows_per_unit=1,
        min_words=1,
        max_words=1000,
        max_characters=8000,
        train_fraction=0.95,
        delta=5e-7,
        budget_epsilon=5.94,
        planned_levels=("eps-5.94",),
    ),
    generator=GeneratorSettings(
        prompt="empty",
        rank=8,
        alpha=16,
        target_modules=ATTENTION,
        sampling_probability=4096 / 180_000,
        expected_batch_size=4096,
        steps=440,
        spare_steps=10,
        l2_clip_norm=0.5,
        learning_rate=1e-3,
        max_tokens=1024,
        loss_normaliser=1024,
        tokens_per_micro_batch=4096,
    ),
    votes=VotesSettings(num_bins=1000, noise_stddev=10.0),
    sampling=SamplingSettings(
        prompt="empty", num_samples=1_000_000, max_new_tokens=1024, temperature=1.0, top_p=0.95, batch_size=256
    ),
    selection=SelectionSettings(target_size=180_000, top_up_samples=200_000),
    annotation=AnnotationSettings(max_new_tokens=1024, temperature=0.7, top_p=0.95, batch_size=64),
    sft=AdapterTraining(
        rank=8, alpha=16, target_modules=ATTENTION, learning_rate=3e-4, batch_size=32, epochs=3, max_tokens=1024, seed=4
    ),
    preferences=PreferenceSettings(num_pairs=20_000, hot_temperature=1.4),
    reward=RewardSettings(
        rank=8,
        alpha=16,
        target_modules=ATTENTION,
        learning_rate=1e-4,
        batch_size=32,
        epochs=1,
        max_tokens=1024,
        held_out_fraction=0.05,
        seed=6,
    ),
    rlhf=RlhfSettings(
        method="rloo",
        learning_rate=1e-5,
        steps=500,
        prompts_per_step=32,
        num_generations=4,
        max_prompt_tokens=512,
        max_new_tokens=512,
        temperature=1.0,
        kl_coefficient=0.05,
        evaluation_prompts=128,
        evaluations=11,
    ),
    report=ReportSettings(baseline_samples=1280, examples=10, mauve_buckets=200),
    language_model="yahma/llama-7b-hf",
    embedder="sentence-transformers/sentence-t5-base",
)

NAMED: Mapping[str, Profile] = {profile.name: profile for profile in (DEMO, PAPER)}


@dataclass(frozen=True)
class LoadedProfile:
    """A profile, and where it comes from: `file` (None: a named one), the profile `base` that it starts from, and the
    dotted names of the settings that the file itself sets, `own`.
    """

    profile: Profile
    base: str
    file: Path | None = None
    own: frozenset[str] = frozenset()

    def origin(self, setting: str) -> str:
        """The name of the file or the profile that a setting's value comes from."""
        of_file = any(f"{setting}.".startswith(f"{name}.") for name in self.own)
        return str(self.file) if of_file else self.base


@cache
def selected_profile() -> Profile:
    """The profile that the environment names, `demo` if it names none.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    return load_profile(selected_name())


def selected_name() -> str:
    """The name or file that the environment gives, `demo` if it gives none."""
    return os.environ.get(PROFILE_VARIABLE, DEMO.name)


def load_profile(name: str) -> Profile:
    """A named profile, or the one that a TOML file describes.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    return load(name).profile


def load(name: str) -> LoadedProfile:
    """The same with where its settings come from.

    Raises:
      ProfileError: there is no such profile or file, or a setting is invalid.
    """
    if name in NAMED:
        return LoadedProfile(NAMED[name], base=name)
    if not name.endswith(".toml") or not Path(name).is_file():
        raise ProfileError(
            f"the profile {name!r} is neither one of {', '.join(NAMED)} nor a readable .toml file{_hint(name)};"
            f" {PROFILE_VARIABLE} names one"
        )
    return _from_toml(Path(name))


def _from_toml(path: Path) -> LoadedProfile:
    overrides = _parsed(path)
    extends = str(overrides.pop("extends", DEMO.name))
    if extends not in NAMED:
        raise ProfileError(f"{path}: `extends` must be one of {', '.join(NAMED)}{_hint(extends)}")
    base = NAMED[extends].model_dump(mode="json")
    settings = _merged(base, {"name": path.stem} | overrides)
    _resolve_paths(settings, path.parent)
    try:
        profile = _validated(settings)
        problems = contradictions(profile)
    except ValidationError as invalid:
        problems = _all_problems(settings, base, invalid)
    if problems:
        noun = "setting" if len(problems) == 1 else "settings"
        raise ProfileError(f"{path} has {len(problems)} invalid {noun}:", problems)
    return LoadedProfile(profile, base=extends, file=path, own=frozenset(_own_names({"name": ""} | overrides)))


def _hint(name: str) -> str:
    """The named profile that a misspelt name may mean."""
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
    """The profile, if each value has the type that TOML gives it: no number in quotes, no true for 1."""
    return Profile.model_validate_json(json.dumps(settings, default=str), strict=True)


def _all_problems(settings: dict[str, Any], base: Mapping[str, Any], invalid: ValidationError) -> list[Problem]:
    """What is wrong with single settings, and every contradiction between the others.

    To find the latter, an invalid setting is given the value of the base, or its whole table is; a contradiction that
    it then takes part in is not counted.
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
    """Give the innermost setting on the way to `place` that is no table the value of the base, or take it out."""
    name, *inner = place
    if inner and isinstance(settings.get(name), dict):
        below = base.get(name)
        _put_back(settings[name], below if isinstance(below, Mapping) else {}, inner)
    elif name in base:
        settings[name] = base[name]
    else:
        settings.pop(name, None)


def _own_names(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names that a file sets. A source is replaced as a whole, so it is one."""
    for name, value in overrides.items():
        if isinstance(value, Mapping) and name != "source":
            yield from _own_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with single settings replaced; a source is replaced as a whole, because its fields belong together."""
    merged = dict(base)
    for name, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and name != "source"
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def _resolve_paths(settings: dict[str, Any], folder: Path) -> None:
    """A relative path in a profile file is relative to that file, wherever a command is run."""
    corpus = settings.get("corpus")
    source = corpus.get("source") if isinstance(corpus, dict) else None
    for group in (source, settings.get("annotation"), settings.get("preferences")):
        if isinstance(group, dict) and isinstance(group.get("path"), str):
            group["path"] = str((folder / group["path"]).resolve())
