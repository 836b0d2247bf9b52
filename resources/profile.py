"""The profile: every public choice of a run in one frozen value, so that a click, a backfill and a command run the same
plan.

A profile is a resource of the code location and is chosen when that loads (`dp_assets/profiles.py`). It holds public
constants only. Whoever changes a number that decides the guarantee gets another plan, and the ledger treats that as a
new charge.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dp_assets.privacy.plan import PrivacyPlan, make_plan, target_of
from dp_assets.privacy.units import PrivacyUnit

GeneratorPrompt = Literal["user_turn", "system_user_turn", "empty"]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
PositiveReal = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """A group of settings: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(Settings):
    """Where the real instructions come from. `columns` maps our names (`text`, `user_id`, ...) to the file's."""

    kind: Literal["chitchat", "file"]
    path: Path | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _file_needs_path_and_text(self) -> "SourceSettings":
        if self.kind == "file" and (self.path is None or "text" not in self.columns):
            raise ValueError("a source of kind 'file' needs `path` and a `columns` entry for `text`")
        return self


class CohortSettings(Settings):
    """The fixed list of disjoint sets of units; `first` and `last` bound a list of months, quarters or years."""

    kind: Literal["all", "month", "quarter", "year", "user_bucket"] = "all"
    num_buckets: Positive | None = None
    first: str | None = None
    last: str | None = None


class CorpusSettings(Settings):
    """The registered terms of a corpus and its preparation, which treats each unit's rows apart from all others."""

    source: SourceSettings
    snapshot: str = "1"
    unit: PrivacyUnit
    max_rows_per_unit: Positive
    min_words: Positive
    max_words: Positive
    max_characters: Positive
    languages: tuple[str, ...] | None = None
    train_fraction: Fraction
    cohorts: CohortSettings = CohortSettings()
    delta: Annotated[float, Field(gt=0, lt=1)]
    budget_epsilon: PositiveReal
    planned_levels: tuple[str, ...]


class GeneratorSettings(Settings):
    """DP-SGD of a LoRA adapter on the `last_layers` blocks (None: all); fewer trained parameters mean less noise."""

    prompt: GeneratorPrompt
    rank: Positive
    alpha: Positive
    target_modules: tuple[str, ...]
    last_layers: Positive | None = None
    sampling_probability: Fraction
    expected_batch_size: Positive
    steps: Positive
    spare_steps: NonNegative
    l2_clip_norm: PositiveReal
    learning_rate: PositiveReal
    max_tokens: Positive
    loss_normaliser: PositiveReal
    tokens_per_micro_batch: Positive
    seed: int = 0

    def tuning(self) -> dict[str, Any]:
        """The settings that the privacy plan does not hold: they shape the adapter, not the guarantee."""
        planned = {"sampling_probability", "expected_batch_size", "steps", "spare_steps", "l2_clip_norm"}
        return self.model_dump(mode="json", exclude=planned)


class VotesSettings(Settings):
    """The noisy histogram."""

    num_bins: Annotated[int, Field(ge=2)]
    noise_stddev: PositiveReal


class SamplingSettings(Settings):
    """How the synthetic pool is drawn from the generator. `prompt` may differ from the one it was trained after.

    After the system message a chat model opens with requests more often, but those tokens would double the cost of
    training on short texts; sharing their keys and values makes them nearly free in sampling.
    """

    prompt: GeneratorPrompt
    num_samples: Positive
    max_new_tokens: Positive
    temperature: PositiveReal
    top_p: Fraction
    batch_size: Positive
    seed: int = 1


class SelectionSettings(Settings):
    """Resampling. `top_up_samples` bounds what is drawn again for short bins."""

    target_size: Positive
    top_up_samples: NonNegative
    seed: int = 2


class AnnotationSettings(Settings):
    """Answers of the local model."""

    max_new_tokens: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_p: Fraction
    batch_size: Positive
    seed: int = 3


class AdapterTraining(Settings):
    """Ordinary LoRA training on released data, on the first `max_rows` rows or all of them."""

    rank: Positive
    alpha: Positive
    target_modules: tuple[str, ...]
    learning_rate: PositiveReal
    batch_size: Positive
    epochs: Positive
    max_tokens: Positive
    seed: int
    max_rows: Positive | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of a trainer, which is handed rows already limited to `max_rows`."""
        return self.model_dump(exclude={"max_rows"})

    def limit(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The rows to train on."""
        return rows if self.max_rows is None else rows.head(self.max_rows)

    def optimiser_steps(self, num_rows: int) -> int:
        """How many steps training on this many rows takes, for progress."""
        return self.epochs * math.ceil(num_rows / self.batch_size)


class PreferenceSettings(Settings):
    """Preference pairs from one offline model; `hot_temperature` samples answers worth rejecting."""

    num_pairs: Positive
    hot_temperature: PositiveReal
    seed: int = 5


class RewardSettings(AdapterTraining):
    """The reward model; `held_out_fraction` of the pairs measures it."""

    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]


class RlhfSettings(Settings):
    """RLOO against the reward model."""

    learning_rate: PositiveReal
    steps: Positive
    prompts_per_step: Positive
    num_generations: Annotated[int, Field(ge=2)]
    max_prompt_tokens: Positive
    max_new_tokens: Positive
    temperature: PositiveReal
    kl_coefficient: Annotated[float, Field(ge=0)]
    seed: int = 7


class ReportSettings(Settings):
    """Reports; `baseline_samples` are drawn from the untrained base model, the baseline of epsilon zero."""

    baseline_samples: Positive
    examples: Positive
    mauve_buckets: Positive
    seed: int = 8


class Profile(Settings):
    """Everything public that a run depends on."""

    name: str
    corpus: CorpusSettings
    generator: GeneratorSettings
    votes: VotesSettings
    sampling: SamplingSettings
    selection: SelectionSettings
    annotation: AnnotationSettings
    sft: AdapterTraining
    preferences: PreferenceSettings
    reward: RewardSettings
    rlhf: RlhfSettings
    report: ReportSettings
    language_model: str = "packaged"
    embedder: str = "packaged"
    device: str = "auto"
    dtype: str = "auto"

    @model_validator(mode="after")
    def _users_are_named(self) -> "Profile":
        source = self.corpus.source
        if self.corpus.unit is PrivacyUnit.USER and source.kind == "file" and "user_id" not in source.columns:
            raise ValueError("corpus.unit 'user' needs a source.columns entry for `user_id`; or choose 'instruction'")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        for level in self.corpus.planned_levels:
            target_of(level)
        if self.votes.num_bins > self.sampling.num_samples:
            raise ValueError("votes.num_bins must not exceed sampling.num_samples: bins are fitted on the pool")
        if self.selection.target_size > self.sampling.num_samples:
            raise ValueError("selection.target_size must not exceed sampling.num_samples: resampling only removes")
        return self

    def plan(self, level: str) -> PrivacyPlan:
        """The privacy plan of a level.

        Raises:
          UnreachableTarget: no sensible noise meets the level's target.
        """
        return make_plan(
            level=level,
            delta=self.corpus.delta,
            unit=self.corpus.unit,
            max_rows_per_unit=self.corpus.max_rows_per_unit,
            sampling_probability=self.generator.sampling_probability,
            steps=self.generator.steps,
            spare_steps=self.generator.spare_steps,
            l2_clip_norm=self.generator.l2_clip_norm,
            expected_batch_size=self.generator.expected_batch_size,
            num_bins=self.votes.num_bins,
            votes_noise_stddev=self.votes.noise_stddev,
        )

    def planned(self) -> tuple[PrivacyPlan, ...]:
        """The plans to register before any output exists."""
        return tuple(self.plan(level) for level in self.corpus.planned_levels)

    def baseline_sampling(self) -> dict[str, Any]:
        """Settings for samples of the untrained base model: the pool's, with the report's size and seed."""
        return self.sampling.model_dump() | {"num_samples": self.report.baseline_samples, "seed": self.report.seed}

    @property
    def digest(self) -> str:
        """A short hash of every setting."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
