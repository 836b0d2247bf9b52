"""The sources of preference pairs, as the asset uses them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from dp_assets.alignment.settings import PreferenceSettings
from dp_assets.artifacts import Adapter, adapter_digest
from dp_assets.progress import progress, silent
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import endpoint_answerer, handed_back
from resources.annotator import Annotator, samples_file
from resources.models.loaders import LanguageModel

if TYPE_CHECKING:
    from dp_assets.alignment.samples import Draw, KeptSamples

DROPPED = "preferences/dropped"
ASSET = "preference_pairs"


@dataclass(frozen=True)
class Preferences:
    """Preference pairs and public figures about how they came about."""

    pairs: pl.DataFrame
    figures: dict[str, Any] = field(default_factory=dict)


def policy_drawing(
    language_model: LanguageModel,
    policy: Adapter,
    profile: Profile,
    *,
    temperature: float,
    advance: Callable[[int], None] = silent,
) -> "Draw":
    """Answers sampled from a policy at this temperature; the model is loaded when it is first asked."""

    @cache
    def loaded() -> tuple[Any, Any]:
        from dp_assets.generation.adapters import attach_adapter

        base, tokenizer = language_model.load()
        return attach_adapter(base, policy), tokenizer

    def draw(texts: list[str], seed: int) -> list[str]:
        from dp_assets.generation.sampling import generate_answers

        settings = profile.annotation
        sampling = replace(settings.parameters, temperature=temperature, seed=seed)
        return generate_answers(
            *loaded(), instructions=texts, sampling=sampling, batch_size=settings.batch_size, advance=advance
        )

    return draw


@contextmanager
def kept_samples(
    home: Path, partition: str, language_model: LanguageModel, policy: Adapter, profile: Profile
) -> Iterator["KeptSamples"]:
    """Answers of a policy to be compared, those that were drawn before among them. Their file is held meanwhile.

    Only for partitions whose artifacts lie in the released zone, which whoever calls this has made sure of.

    Raises:
      AnswersBusy: another run is sampling for the same partition.
    """
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.alignment.samples import KeptSamples

    settings, answers = profile.preferences, profile.annotation
    identity = {
        "base": language_model.public_name,
        "policy": adapter_digest(policy.weights, policy.config),
        "max_new_tokens": answers.max_new_tokens,
        "top_p": answers.top_p,
        "temperature": settings.judged_temperature,
    }
    draw = policy_drawing(language_model, policy, profile, temperature=settings.judged_temperature)
    with AnswersStore.opened(samples_file(home, ASSET, partition)) as store:
        yield KeptSamples(store, draw, identity=identity, batch_size=answers.batch_size, seed=settings.seed)


def sample_kept(samples: "KeptSamples", texts: list[str]) -> list[str]:
    """An answer to each text, with progress."""
    with progress("sampling answers to compare", len(texts), "answers") as advance:
        return samples.answers(texts, advance)


def offline_preferences(
    annotated: pl.DataFrame, language_model: LanguageModel, policy: Adapter, profile: Profile
) -> Preferences:
    """The annotated answers against ones made worse, without a judge."""
    from dp_assets.alignment.preferences import make_preference_pairs

    settings = profile.preferences

    def hot(texts: list[str]) -> list[str]:
        with progress("sampling hot answers to reject", len(texts), "answers") as advance:
            temperature = settings.hot_temperature
            draw = policy_drawing(language_model, policy, profile, temperature=temperature, advance=advance)
            return draw(texts, settings.seed)

    pairs = make_preference_pairs(annotated, sampled_hot=hot, num_pairs=settings.num_pairs, seed=settings.seed)
    return Preferences(pairs)


def judged_preferences(
    context: dg.AssetExecutionContext,
    judge: Annotator,
    annotated: pl.DataFrame,
    language_model: LanguageModel,
    policy: Adapter,
    profile: Profile,
) -> Preferences:
    """Two answers of the policy to each prompt, compared by an endpoint in both orders.

    Raises:
      NotReleased: this asset lies in the private zone.
      MissingKey: the endpoint's key is not there.
      EndpointError: the endpoint cannot be asked; found out before the long sampling, if there is any to do.
    """
    from dp_assets.alignment.judge import JUDGE_PROMPT, judged_pairs, read_verdict

    settings = profile.preferences
    with (
        progress("judging", 2 * min(settings.num_pairs, annotated.height), "comparisons") as advance,
        endpoint_answerer(
            context,
            judge,
            sampling=settings.judge_parameters,
            advance=advance,
            system=JUDGE_PROMPT,
            is_readable=lambda text: read_verdict(text) is not None,
        ) as answerer,
        kept_samples(judge.home, context.partition_key, language_model, policy, profile) as samples,
    ):

        def sample(texts: list[str]) -> list[str]:
            if samples.missing(texts):
                answerer.check()
            return sample_kept(samples, texts)

        judged = judged_pairs(
            annotated, sample=sample, judge=answerer.answer, num_pairs=settings.num_pairs, seed=settings.seed
        )
    return Preferences(judged.rows, {**answerer.figures, DROPPED: dict(judged.dropped)})


def preferences_of_file(settings: PreferenceSettings) -> Preferences:
    """The pairs of the user's own public file."""
    from dp_assets.alignment.preference_file import read_preference_file

    if settings.path is None:
        raise ValueError("preferences.path is not set; give it a .parquet, .jsonl or .json file")
    read = read_preference_file(settings.path, num_pairs=settings.num_pairs, seed=settings.seed)
    return Preferences(read.rows, {DROPPED: dict(read.dropped)})


def preferences_of_people(
    context: dg.AssetExecutionContext, settings: PreferenceSettings, annotated: pl.DataFrame
) -> Preferences:
    """The verdicts of people on pairs of answers that were handed out to them.

    Raises:
      NotReleased: this asset lies in the private zone, from where nothing can have been handed out.
      ExportError: the file with their verdicts is missing or cannot be read.
      NothingUsable: it holds no verdict on answers to any of these prompts.
    """
    from dp_assets.alignment.handoff import take_verdicts

    path = handed_back(context, "preferences", settings.path)
    taken = take_verdicts(path, annotated, partition=context.partition_key, setting="preferences.path")
    return Preferences(taken.rows, taken.figures)
