"""Settings of annotators and judges, and of the models that are trained on released data."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import polars as pl
from pydantic import Field, field_validator, model_validator

from dp_assets.fields import (
    VARIABLE_NAME,
    Fraction,
    LearningRate,
    NonNegativeReal,
    Positive,
    PositiveReal,
    Settings,
)
from dp_assets.generation.settings import SamplingParameters

Method = Literal["rloo", "grpo", "dpo"]
"""How the policy is optimized."""

OPERATIONAL = {
    "base_url",
    "api_key_variable",
    "concurrency",
    "timeout_seconds",
    "attempts",
    "backoff_seconds",
    "requests_per_minute",
    "tokens_per_minute",
    "input_price",
    "output_price",
    "budget_money",
    "budget_tokens",
}
"""Settings of an endpoint that decide how it is asked, not what."""


class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint.

    - `api_key_variable` names the environment variable that holds the key (None: the server needs none).
    - Prices are per million tokens, in the unit of `budget_money`. Budgets hold for all runs of one table together.
    - `omitted` lists parameters that the model does not accept, `extra_body` holds additional ones.
    """

    base_url: str
    model: Annotated[str, Field(min_length=1)]
    api_key_variable: str | None = None
    concurrency: Positive = 8
    timeout_seconds: PositiveReal = 120.0
    attempts: Positive = 6
    backoff_seconds: PositiveReal = 1.0
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    input_price: NonNegativeReal | None = None
    output_price: NonNegativeReal | None = None
    budget_money: PositiveReal | None = None
    budget_tokens: Positive | None = None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omitted: tuple[Literal["temperature", "top_p", "seed"], ...] = ()
    extra_body: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        is_printed = base_url.isprintable() and " " not in base_url  # urlsplit drops line breaks and tabs
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or not is_printed:
            raise ValueError("give an address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("leave out what stands before the @; a key comes from the variable of api_key_variable")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("the port must be a number up to 65535") from None
        return base_url

    @field_validator("api_key_variable")
    @classmethod
    def _is_a_name(cls, variable: str | None) -> str | None:
        # The message does not repeat the value, which may be the key itself.
        if variable is not None and not VARIABLE_NAME.fullmatch(variable):
            raise ValueError("give the name of an environment variable such as OPENAI_API_KEY, never the key itself")
        return variable

    @model_validator(mode="after")
    def _money_has_prices(self) -> "EndpointSettings":
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price come together")
        if self.budget_money is not None and self.input_price is None:
            raise ValueError("budget_money needs input_price and output_price")
        return self

    def parameters(self, sampling: SamplingParameters) -> dict[str, Any]:
        """Return the fields of a request's body except model and messages."""
        named = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
        sent = {name: value for name, value in named.items() if name not in self.omitted}
        return {**sent, self.max_tokens_name: sampling.max_new_tokens, **self.extra_body}


class JudgeSettings(EndpointSettings):
    """An endpoint that compares answers. Judges that explain their verdict need more tokens than the verdict alone."""

    max_new_tokens: Positive = 512
    temperature: NonNegativeReal = 0.0


class AnnotationSettings(Settings):
    """The source of answers.

    model     the local model, or an endpoint if there is one; `batch_size` concerns the former only
    human     people, whose finished annotations are at `path` (`dp-instructions handoff export` writes their tasks)
    """

    max_new_tokens: Positive
    temperature: NonNegativeReal
    top_p: Fraction
    batch_size: Positive
    seed: int = 3
    source: Literal["model", "human"] = "model"
    endpoint: EndpointSettings | None = None
    path: Path | None = None

    @model_validator(mode="after")
    def _people_need_a_path(self) -> "AnnotationSettings":
        if self.source == "human" and self.path is None:
            raise ValueError("source 'human' needs `path`: where the JSON export of Label Studio will be")
        return self

    @property
    def parameters(self) -> SamplingParameters:
        """The sampling parameters of an answer."""
        return SamplingParameters(self.max_new_tokens, self.temperature, self.top_p, self.seed)


class AdapterTraining(Settings):
    """Ordinary LoRA training on released data, on the first `max_rows` rows or all of them."""

    rank: Positive
    alpha: Positive
    target_modules: tuple[str, ...]
    learning_rate: LearningRate
    batch_size: Positive
    epochs: Positive
    max_tokens: Positive
    seed: int
    max_rows: Positive | None = None

    def limit(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the rows to train on."""
        return rows if self.max_rows is None else rows.head(self.max_rows)

    def optimizer_steps(self, num_rows: int) -> int:
        """Return the number of optimizer steps for this many rows, for progress."""
        return self.epochs * math.ceil(num_rows / self.batch_size)


class PreferenceSettings(Settings):
    """The source of preference pairs.

    offline   the annotated answers against ones made worse; `hot_temperature` is for sampling some of the worse ones
    judge     two answers of the SFT model, sampled at `judged_temperature` and compared by the endpoint `judge`
    file      a public file of the user's own with the columns prompt, chosen and rejected, at `path`
    human     two answers as for the judge, compared by people whose finished annotations are at `path`
    """

    num_pairs: Positive
    hot_temperature: PositiveReal
    seed: int = 5
    source: Literal["offline", "judge", "file", "human"] = "offline"
    judged_temperature: PositiveReal = 1.0
    judge: JudgeSettings | None = None
    path: Path | None = None

    @property
    def judge_parameters(self) -> SamplingParameters:
        """The sampling parameters of a verdict, without top-p truncation.

        Raises:
          ValueError: there is no judge.
        """
        if self.judge is None:
            raise ValueError("preferences.judge is not set; give it base_url and model")
        return SamplingParameters(self.judge.max_new_tokens, self.judge.temperature, top_p=1.0, seed=self.seed)

    @model_validator(mode="after")
    def _source_is_described(self) -> "PreferenceSettings":
        if self.source == "judge" and self.judge is None:
            raise ValueError("source 'judge' needs the settings `judge` of an endpoint: base_url and model at least")
        if self.source == "file" and self.path is None:
            raise ValueError("source 'file' needs `path`: a .parquet, .jsonl or .json file")
        if self.source == "human" and self.path is None:
            raise ValueError("source 'human' needs `path`: where the JSON export of Label Studio will be")
        return self


class RewardSettings(AdapterTraining):
    """The reward model; `held_out_fraction` of the pairs measures it."""

    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]


class RlhfSettings(Settings):
    """The policy.

    rloo, grpo  maximize the reward, with `num_generations` answers sampled to each of `prompts_per_step` prompts; at
                least two, because each is compared with the others
    dpo         trains on preference pairs, `prompts_per_step` of them per step; `kl_coefficient` is its beta

    The answers of a step are one batch. An answer that reaches `max_new_tokens` is scored truncated. Without a positive
    `kl_coefficient`, the policy would exploit errors of the reward model. All methods are evaluated at the same
    `evaluation_prompts` held-out prompts, at `evaluations` points of the training: before, after, and evenly in
    between.
    """

    method: Method
    learning_rate: LearningRate
    steps: Positive
    prompts_per_step: Positive
    num_generations: Annotated[int, Field(ge=2)]
    max_prompt_tokens: Positive
    max_new_tokens: Positive
    temperature: PositiveReal
    kl_coefficient: PositiveReal
    evaluation_prompts: Positive
    evaluations: Annotated[int, Field(ge=2)]
    seed: int = 7

    @property
    def parameters(self) -> SamplingParameters:
        """The sampling parameters of an answer of the policy."""
        return SamplingParameters(self.max_new_tokens, self.temperature, top_p=1.0, seed=self.seed)
