"""The sources of preference pairs: an offline rule, a judge, a file and people."""

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
    """Preference pairs, and public figures about how they were made."""

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
    """Return a function that samples answers from a policy. The model is loaded at its first call.

    Args:
      language_model: the base model.
      policy: the adapter of the policy.
      profile: its `annotation` settings give the other sampling parameters and the batch size.
      temperature: the sampling temperature.
      advance: called with the number of answers sampled.
    """

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
    """Open the stored answers of a policy, which are to be compared. The missing ones are sampled on demand.

    The file of the answers is locked until the block ends. The caller must make sure that the artifacts of the
    partition lie in the released zone.

    Args:
      home: the data folder.
      partition: the key of the partition.
      language_model: the base model.
      policy: the adapter of the policy.
      profile: the settings of answers and of pairs.

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
    """Return an answer to each text, and show progress."""
    with progress("sampling answers to compare", len(texts), "answers") as advance:
        return samples.answers(texts, advance)


def offline_preferences(
    annotated: pl.DataFrame, language_model: LanguageModel, policy: Adapter, profile: Profile
) -> Preferences:
    """Return pairs of an annotated answer and one made worse on purpose, without a judge."""
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
    """Return pairs of two answers of the policy to each prompt, compared by an endpoint in both orders.

    Args:
      context: the context of the asset that runs.
      judge: the endpoint that compares.
      annotated: the rows of `annotated_instructions`, whose instructions are the prompts.
      language_model: the base model.
      policy: the adapter of the policy.
      profile: the settings of answers and of pairs.

    Raises:
      NotReleased: this asset lies in the private zone.
      MissingKey: the endpoint's key is not there.
      EndpointError: the endpoint cannot be asked. This is checked before the long sampling, if answers are missing.
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
    """Return the pairs of the user's own public file.

    Raises:
      ValueError: the profile names no file.
      PreferenceFileError: the file cannot be read as preference pairs.
    """
    from dp_assets.alignment.preference_file import read_preference_file

    if settings.path is None:
        raise ValueError("preferences.path is not set; give it a .parquet, .jsonl or .json file")
    read = read_preference_file(settings.path, num_pairs=settings.num_pairs, seed=settings.seed)
    return Preferences(read.rows, {DROPPED: dict(read.dropped)})


def preferences_of_people(
    context: dg.AssetExecutionContext, settings: PreferenceSettings, annotated: pl.DataFrame
) -> Preferences:
    """Return the pairs given by verdicts of people on the answers that were exported for comparison.

    Raises:
      NotReleased: this asset lies in the private zone, from where nothing can have been handed out.
      ExportError: the file with their verdicts is missing or cannot be read.
      NothingUsable: it holds no verdict on answers to any of these prompts.
    """
    from dp_assets.alignment.handoff import take_verdicts

    path = handed_back(context, "preferences", settings.path)
    taken = take_verdicts(path, annotated, partition=context.partition_key, setting="preferences.path")
    return Preferences(taken.rows, taken.figures)
