"""Public checks of each stage: models are loaded and tried on public text before a charge.

A run makes the checks of the assets that it will make. `dp-instructions config check --here` makes all of them. Each
stage takes one tiny step with its own code (`generation/trial.py`, `alignment/trial.py`). No check opens a private
table or the source, so its messages are public.

A check that passed is not repeated in the same process under the same settings.
"""

import copy
import gc
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dp_assets.privacy.errors import PublicError
from dp_assets.settings.problems import Problem
from dp_assets.settings.profile import Profile
from dp_assets.stages.sampling import require_engine
from resources.annotator import NotReady
from resources.models.loaders import Embedder, LanguageModel, require_device
from resources.storage.room import require_room

GENERATOR, HISTOGRAM = MECHANISMS = ("dp_generator", "dp_histogram")
SAMPLING = frozenset({"synthetic_pool", "filtered_instructions", "quality_report"})
EMBEDDING = frozenset({GENERATOR, "real_embeddings", "synthetic_embeddings", "filtered_instructions", "quality_report"})
"""The check of the embedder. The generator does not use it, but without an embedder its release could not be voted
on."""
LANGUAGE_MODEL, DEVICE = "language_model", "device"
PASSED, FAILED, PASSED_OVER, BEGUN = "passed", "failed", "not tried", "trying"
Tell = Callable[[str, str], object]


def say_nothing(_setting: str, _outcome: str) -> None:
    """Do nothing: a `Tell` for callers that show no progress."""


@dataclass(frozen=True)
class PublicCheck:
    """One check.

    - `setting` is what it concerns, `assets` are the assets that would fail later.
    - `require` makes the check and raises if it fails.
    - `decided_by` says on which settings the outcome depends. If it is empty, the outcome depends on more than
      settings, and the check is made each time.
    - `needs` names other checks by their setting. The check is skipped if one of them failed.
    """

    setting: str
    assets: Collection[str]
    require: Callable[[], object] = field(repr=False)
    decided_by: str = ""
    needs: tuple[str, ...] = ()


_passed: set[tuple[str, str]] = set()
"""Setting and `decided_by` of the checks that passed in this process."""


def require_public(checks: Collection[PublicCheck], wanted: Collection[str]) -> None:
    """Make the checks that the `wanted` assets need, and free the memory of the models afterwards.

    Raises:
      NotReady: a check failed; the message names the setting and the remedy.
    """
    needed = [check for check in checks if not set(check.assets).isdisjoint(wanted)]
    try:
        for problem in found_by(needed):
            raise NotReady(problem.what)
    finally:
        _let_go()


def found_by(checks: Collection[PublicCheck], *, tell: Tell = say_nothing) -> Iterator[Problem]:
    """Make checks in their order and yield the problems they find. The same message is yielded once.

    `tell` is called for each check with its setting, first as it begins and then with its outcome: passed, failed or
    skipped.
    """
    failed: set[str] = set()
    said: set[str] = set()
    for check in checks:
        tell(check.setting, BEGUN)
        outcome, problem = _outcome(check, failed)
        tell(check.setting, outcome)
        if problem is not None:
            failed.add(check.setting)
            if problem.what not in said:
                yield problem
            said.add(problem.what)


def _outcome(check: PublicCheck, failed: Collection[str]) -> tuple[str, Problem | None]:
    """Make a check unless it is to be skipped or has passed before; return its outcome and its problem, if any."""
    if not set(check.needs).isdisjoint(failed):
        return PASSED_OVER, None
    if (check.setting, check.decided_by) in _passed:
        return PASSED, None
    problem = _problem(check)
    if problem is None and check.decided_by:
        _passed.add((check.setting, check.decided_by))
    return (PASSED, None) if problem is None else (FAILED, problem)


def _problem(check: PublicCheck) -> Problem | None:
    try:
        check.require()
    except (PublicError, ValueError) as refusal:
        return Problem(check.setting, str(refusal))
    except Exception as error:  # any error of a library: the text is public, so its message is too
        said = next(iter(str(error).strip().splitlines()), "")
        return Problem(
            check.setting,
            f"{check.setting} cannot be used on public text ({type(error).__name__}: {said}); choose another, or"
            " correct the settings that concern it",
        )
    return None


def _let_go() -> None:
    """Free the memory of models that were only tried, before others are trained."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Loaded:
    """A language model that the checks load once and release with the last stage."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model
        self._kept: tuple[Any, Any] | None = None

    def shared(self) -> tuple[Any, Any]:
        """Return the model and its tokenizer, for a stage that does not change the model."""
        if self._kept is None:
            self._kept = self.language_model.load()
        return self._kept

    def copied(self) -> tuple[Any, Any]:
        """Return a copy of the model, for a stage that changes it, and the tokenizer."""
        model, tokenizer = self.shared()
        return copy.deepcopy(model), tokenizer

    def handed_over(self) -> tuple[Any, Any]:
        """Return the model itself, for the last stage that changes it, and the tokenizer.

        That stage needs two models, so this one is not kept as a third.
        """
        model, tokenizer = self.shared()
        self._kept = None
        return model, tokenizer


def model_checks(
    profile: Profile, language_model: LanguageModel, embedder: Embedder, home: Path, *, level: str
) -> list[PublicCheck]:
    """Return the checks of disk space, device and models in each stage of a level except private training.

    Cheap checks come first.

    Args:
      profile: the settings.
      language_model: the base model, loaded once for all checks.
      embedder: the embedder.
      home: the data folder, for the check of disk space.
      level: the privacy level, which decides the sampling engine.
    """
    loaded = _Loaded(language_model)
    stages: list[tuple[str, Collection[str], Callable[..., object], Any]] = [
        ("sampling", SAMPLING, partial(_try_sampling, level=level), (profile.generator, level)),
        ("annotation", _answering(profile), _try_answering, profile.sampling),
        ("sft", {"sft_model"}, _try_sft, None),
        ("reward", {"reward_model"}, _try_reward, None),
        ("rlhf", {"rlhf_model"}, _try_policy, profile.sft),
    ]
    model = language_model.model_dump_json()
    used_by = {asset for _, assets, _, _ in stages for asset in assets}
    return [
        PublicCheck("home", MECHANISMS, partial(require_room, home)),
        PublicCheck(DEVICE, used_by | EMBEDDING, partial(require_device, profile.device), profile.device),
        PublicCheck("embedder", EMBEDDING, partial(_try_embedding, embedder), embedder.model_dump_json(), (DEVICE,)),
        PublicCheck(LANGUAGE_MODEL, used_by, loaded.shared, model, (DEVICE,)),
        *(
            PublicCheck(
                setting,
                assets,
                partial(attempt, profile, loaded),
                decided_by=f"{model} {getattr(profile, setting)!r} {besides!r}",
                needs=(DEVICE, LANGUAGE_MODEL),
            )
            for setting, assets, attempt, besides in stages
        ),
    ]


def generator_check(profile: Profile, language_model: LanguageModel, *, level: str) -> PublicCheck:
    """Return the check of private training: clipped gradients of public texts.

    A run does not need it, because the generator makes it with the model that it trains.
    """
    attempt = partial(_try_generator, profile, language_model, level)
    return PublicCheck("generator", {GENERATOR}, attempt, needs=(DEVICE, LANGUAGE_MODEL))


def _answering(profile: Profile) -> set[str]:
    """Return the assets for which the local model samples answers."""
    settings = profile.annotation
    annotated = {"annotated_instructions"} if settings.source == "model" and settings.endpoint is None else set()
    return annotated if profile.preferences.source == "file" else {*annotated, "preference_pairs"}


def _try_embedding(embedder: Embedder) -> None:
    from dp_assets.corpus.stability import UnstablePreparation, require_alone

    embedder.require_usable()
    try:
        require_alone(embedder.encode_alone, longest=embedder.max_tokens)
    except UnstablePreparation as refusal:
        raise NotReady(f"embedder is {embedder.model!r}: {refusal}") from None
    finally:
        embedder.let_go()


def _try_generator(profile: Profile, language_model: LanguageModel, level: str) -> None:
    from dp_assets.generation.generator import require_trainable

    settings = profile.generator
    base, tokenizer = language_model.load(dtype=settings.dtype)
    require_trainable(base, tokenizer, profile.plan(level), settings)


def _try_sampling(profile: Profile, loaded: _Loaded, level: str) -> None:
    """Sample with a merged adapter, like that of the generator, by Transformers whatever the engine."""
    from dp_assets.generation.generator import with_new_adapter
    from dp_assets.generation.trial import try_sampling

    require_engine(loaded.language_model, profile.sampling, level=level)
    base, tokenizer = loaded.copied()
    model = with_new_adapter(base, profile.generator).merge_and_unload()
    try_sampling(model, tokenizer, profile.sampling)


def _try_answering(profile: Profile, loaded: _Loaded) -> None:
    from dp_assets.generation.trial import try_answering

    longest = profile.sampling.max_new_tokens
    try_answering(*loaded.shared(), profile.annotation.parameters, longest_instruction=longest)


def _try_sft(profile: Profile, loaded: _Loaded) -> None:
    from dp_assets.alignment.trial import try_sft

    try_sft(*loaded.copied(), profile.sft)


def _try_reward(profile: Profile, loaded: _Loaded) -> None:
    from dp_assets.alignment.trial import try_reward

    try_reward(*loaded.shared(), profile.reward)


def _try_policy(profile: Profile, loaded: _Loaded) -> None:
    from dp_assets.alignment.trial import try_policy

    try_policy(*loaded.handed_over(), profile.rlhf, sft=profile.sft)
