"""The three sources of preference pairs, as the asset uses them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import Adapter
from dp_assets.assets._answering import endpoint_answerer
from dp_assets.progress import progress
from resources.annotator import Annotator
from resources.models import LanguageModel
from resources.profile import PreferenceSettings, Profile

DROPPED = "preferences/dropped"

Sampler = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Preferences:
    """Preference pairs and public figures about how they came about."""

    pairs: pl.DataFrame
    figures: dict[str, Any] = field(default_factory=dict)


def policy_sampler(
    language_model: LanguageModel, policy: Adapter, profile: Profile, *, temperature: float, label: str
) -> Sampler:
    """Answers sampled from a policy at this temperature; the model is loaded when it is asked."""

    def sample(instructions: list[str]) -> list[str]:
        from dp_assets.generation.adapters import attach_adapter
        from dp_assets.generation.sampling import generate_answers

        base, tokenizer = language_model.load()
        settings = {"temperature": temperature, "seed": profile.preferences.seed}
        sampling = profile.annotation.local_sampling() | settings
        with progress(label, len(instructions), "answers") as advance:
            return generate_answers(
                attach_adapter(base, policy), tokenizer, instructions=instructions, advance=advance, **sampling
            )

    return sample


def offline_preferences(
    annotated: pl.DataFrame, language_model: LanguageModel, policy: Adapter, profile: Profile
) -> Preferences:
    """The annotated answers against ones made worse, without a judge."""
    from dp_assets.alignment.preferences import make_preference_pairs

    settings = profile.preferences
    label, temperature = "sampling hot answers to reject", settings.hot_temperature
    hot = policy_sampler(language_model, policy, profile, temperature=temperature, label=label)
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
    """
    from dp_assets.alignment.judge import JUDGE_PROMPT, judged_pairs, read_verdict

    settings = profile.preferences
    label, temperature = "sampling answers to compare", settings.judged_temperature
    sample = policy_sampler(language_model, policy, profile, temperature=temperature, label=label)
    judge.api_key()  # before the long sampling, not after it
    with (
        progress("judging", 2 * min(settings.num_pairs, annotated.height), "comparisons") as advance,
        endpoint_answerer(
            context,
            judge,
            sampling=settings.judge_sampling(),
            advance=advance,
            system=JUDGE_PROMPT,
            is_readable=lambda text: read_verdict(text) is not None,
        ) as answerer,
    ):
        judged = judged_pairs(
            annotated, sample=sample, judge=answerer.answer, num_pairs=settings.num_pairs, seed=settings.seed
        )
    return Preferences(judged.rows, {**answerer.figures, DROPPED: dict(judged.dropped)})


def preferences_of_file(settings: PreferenceSettings) -> Preferences:
    """The pairs of the user's own public file."""
    from dp_assets.alignment.preference_file import read_preference_file

    if settings.path is None:
        raise ValueError("preferences.path is not set; give it a .parquet, .jsonl or .jsonl.gz file")
    read = read_preference_file(settings.path, num_pairs=settings.num_pairs, seed=settings.seed)
    return Preferences(read.rows, {DROPPED: dict(read.dropped)})
