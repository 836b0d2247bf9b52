"""The profile: every public choice of a run in one frozen value, so that a click, a backfill and a command run the same
plan.

A profile is a resource of the code location and is chosen when that loads (`named.py`). It holds public
constants only. Whoever changes a number that decides the guarantee gets another plan, and the ledger treats that as a
new charge.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from dp_assets.privacy.ledger import ERASED_SUFFIX
from dp_assets.privacy.plan import PrivacyPlan, make_plan
from dp_assets.privacy.units import PrivacyUnit, WithoutUser

GeneratorPrompt = Literal["user_turn", "system_user_turn", "empty"]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
PositiveReal = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
NonNegativeReal = Annotated[float, Field(ge=0)]
PARTING_CHARACTERS = "|/\\"
LONGEST_NAME = 100


def check_name(name: str) -> str:
    """A public name that becomes part of paths, partition keys and ledger entries, unchanged.

    Raises:
      ValueError: it could be taken apart at a wrong place, leave its folder, or pass for another one.
    """
    if not name.isprintable() or any(character in name for character in PARTING_CHARACTERS):
        raise ValueError("must not contain | / \\ or characters that cannot be printed; use letters, digits, - and .")
    if not name or name != name.strip() or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"must have 1 to {LONGEST_NAME} bytes, not begin with a dot, and not begin or end with a space"
        )
    if ERASED_SUFFIX in name:
        raise ValueError(f"must not contain {ERASED_SUFFIX!r}: the ledger adds that itself when a unit is erased")
    return name


PublicName = Annotated[str, AfterValidator(check_name)]


class Settings(BaseModel):
    """A group of settings: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PresetName = Literal[
    "lmsys/lmsys-chat-1m", "lmsys/chatbot_arena_conversations", "OpenAssistant/oasst1", "allenai/WildChat-1M"
]
PRESET_NAMES: tuple[str, ...] = get_args(PresetName)
RedactedKind = Literal["secret", "email", "iban", "crypto", "ip", "card", "ssn", "phone", "person", "place"]
VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


class PresetSteps(Settings):
    """Which rows of a preset's data set stay. Empty `languages` keep all; `drop_flagged` says which turn counts."""

    languages: tuple[str, ...] = ("en",)
    drop_redacted: bool = True
    drop_flagged: Literal["any", "first", "last", "never"] = "any"


class SourceSettings(Settings):
    """Where the real instructions come from. `columns` maps our names (`text`, `user_id`, ...) to the source's.

    chitchat     the packaged public corpus
    file         a file or a folder of files at `path`
    huggingface  the `split` of a `dataset` of the hub, or of a local copy at `path`; a data set with a preset, or one
                 that `preset` says is laid out like it, needs no `columns`
    sql          the SELECT `query` on the DuckDB file at `path`, on what the query itself names, or on the database
                 whose SQLAlchemy address is in the environment variable `url_variable`
    """

    kind: Literal["chitchat", "file", "huggingface", "sql"]
    path: Path | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)
    dataset: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] | None = None
    subset: str | None = None
    split: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "train"
    revision: str | None = None
    preset: PresetName | None = None
    steps: PresetSteps = PresetSteps()
    query: Annotated[str, Field(pattern=r"\S")] | None = None
    url_variable: str | None = None

    @property
    def layout(self) -> str | None:
        """The preset: the one that is named, else that of the data set's own name."""
        return self.preset or (self.dataset if self.dataset in PRESET_NAMES else None)

    @field_validator("url_variable")
    @classmethod
    def _is_a_name(cls, variable: str | None) -> str | None:
        # The message does not repeat the value, which may be the address itself.
        if variable is not None and not VARIABLE_NAME.fullmatch(variable):
            raise ValueError("give the name of an environment variable such as CORPUS_URL, never the address itself")
        return variable

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "SourceSettings":
        unset = type(self).model_construct(kind=self.kind)
        others = sorted(set(type(self).model_fields) - FIELDS_OF_KINDS[self.kind])
        foreign = [name for name in others if getattr(self, name) != getattr(unset, name)]
        if foreign:
            raise ValueError(f"a source of kind {self.kind!r} takes no {', '.join(foreign)}; leave it out")
        if self.kind == "file" and (self.path is None or "text" not in self.columns):
            raise ValueError(
                "a source of kind 'file' needs `path` and a `columns` entry for `text`; write ours = 'yours', such as"
                " columns = { text = 'prompt' }"
            )
        return self

    @model_validator(mode="after")
    def _data_set_is_described(self) -> "SourceSettings":
        if self.kind != "huggingface":
            return self
        if (self.dataset is None) == (self.path is None):
            raise ValueError(
                "a source of kind 'huggingface' needs either `dataset`, an id on the hub, or a local `path`"
            )
        if self.layout is not None and self.columns:
            raise ValueError("the preset knows the columns; leave `columns` out")
        if self.layout is None and "text" not in self.columns:
            raise ValueError(f"needs a `columns` entry for `text`, or a `preset`: one of {', '.join(PRESET_NAMES)}")
        if self.layout is None and self.steps != PresetSteps():
            raise ValueError(
                "`steps` belong to a preset; without one use corpus.languages, or select rows at the source"
            )
        return self

    @model_validator(mode="after")
    def _query_is_described(self) -> "SourceSettings":
        if self.kind != "sql":
            return self
        if self.query is None or "text" not in self.columns:
            raise ValueError("a source of kind 'sql' needs `query` and a `columns` entry for `text`")
        if self.path is not None and self.url_variable is not None:
            raise ValueError("give either `path`, a DuckDB file, or `url_variable`, not both")
        return self


FIELDS_OF_KINDS: Mapping[str, set[str]] = {
    "chitchat": set(),
    "file": {"path", "columns"},
    "huggingface": {"path", "columns", "dataset", "subset", "split", "revision", "preset", "steps"},
    "sql": {"path", "columns", "query", "url_variable"},
}


class CohortSettings(Settings):
    """The fixed list of disjoint sets of units; `first` and `last` bound a list of months, quarters or years."""

    kind: Literal["all", "month", "quarter", "year", "user_bucket"] = "all"
    num_buckets: Positive | None = None
    first: str | None = None
    last: str | None = None


class CorpusSettings(Settings):
    """The registered terms of a corpus and its preparation, which treats each unit's rows apart from all others.

    `name` is a public name under which the corpus is registered, in place of where its source lies. `without_user` says
    what becomes of rows that name no user where users are the units. `redact` replaces what has a recognisable form; it
    is defence in depth, and no figure counts on it. `phone_regions` are those whose telephone numbers are known without
    a country code; people and places are known to the spaCy pipeline `redaction_model`, an installed one or a folder.
    `declared_units` is a public bound on the units of the largest cohort, which the owner states and nothing counts; it
    only refuses settings that do not fit it.
    """

    source: SourceSettings
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    snapshot: PublicName = "1"
    unit: PrivacyUnit
    without_user: WithoutUser = WithoutUser.OWN_UNIT
    max_rows_per_unit: Positive
    min_words: Positive
    max_words: Positive
    max_characters: Positive
    languages: tuple[str, ...] | None = None
    detect_language: bool = False
    redact: tuple[RedactedKind, ...] = ()
    phone_regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
    redaction_model: str | None = None
    train_fraction: Fraction
    cohorts: CohortSettings = CohortSettings()
    declared_units: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=1)]
    budget_epsilon: PositiveReal
    planned_levels: tuple[PublicName, ...]


class GeneratorSettings(Settings):
    """DP-SGD of a LoRA adapter on the `last_layers` blocks (None: all); fewer trained parameters mean less noise.

    `dtype` is that of the frozen model in private training. Adapter, norms, sums and noise are never below float32.
    """

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
    learning_rate: LearningRate
    max_tokens: Positive
    loss_normaliser: PositiveReal
    tokens_per_micro_batch: Positive
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: int = 0

    def tuning(self) -> dict[str, Any]:
        """What shapes the adapter and not the guarantee, but for the type in which the model is loaded."""
        elsewhere = {"sampling_probability", "expected_batch_size", "steps", "spare_steps", "l2_clip_norm", "dtype"}
        return self.model_dump(mode="json", exclude=elsewhere)


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
    engine: Literal["transformers", "vllm"] = "transformers"

    def arguments(self) -> dict[str, Any]:
        """The arguments of a sampler, whichever engine it runs in."""
        return self.model_dump(exclude={"engine"})


class SelectionSettings(Settings):
    """Resampling. `rule` reads the noisy votes: smoothed, or as the paper does.

    `top_up_samples` bounds what is drawn again for short bins, aimed at them if `steered_top_up`.
    """

    target_size: Positive
    top_up_samples: NonNegative
    steered_top_up: bool = True
    rule: Literal["smoothed", "paper"] = "smoothed"
    seed: int = 2


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

OWN_SETTINGS = {"annotated_instructions": "annotation", "preference_pairs": "preferences"}
"""The groups of settings that decide one asset and what is made from it."""

MISSING_FILE = "missing"


class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint.

    `api_key_variable` names the environment variable that holds the key (None: the server needs none). Prices are per
    million tokens, in the unit of `budget_money`; budgets hold for all runs of one table together. `omitted` lists
    parameters that the model does not take, `extra_body` further ones.
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

    def parameters(self, *, max_new_tokens: int, temperature: float, top_p: float, seed: int) -> dict[str, Any]:
        """The fields of a request's body besides model and messages."""
        sampling = {"temperature": temperature, "top_p": top_p, "seed": seed}
        sent = {name: value for name, value in sampling.items() if name not in self.omitted}
        return {**sent, self.max_tokens_name: max_new_tokens, **self.extra_body}

    def connection(self) -> dict[str, Any]:
        """Where the endpoint is and how it is asked."""
        patience = {"timeout_seconds", "attempts", "backoff_seconds", "concurrency"}
        return self.model_dump(include={"base_url", "model"} | patience)

    def limits(self) -> dict[str, Any]:
        """What all runs for one table may cost together; a price that is not set counts as 0."""
        budgets = {"tokens": self.budget_tokens, "money": self.budget_money}
        return {**budgets, "input_price": self.input_price or 0.0, "output_price": self.output_price or 0.0}


class JudgeSettings(EndpointSettings):
    """An endpoint that compares answers. Judges that think aloud need more than the verdict's few tokens."""

    max_new_tokens: Positive = 512
    temperature: NonNegativeReal = 0.0


class AnnotationSettings(Settings):
    """Who answers.

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

    def sampling(self) -> dict[str, Any]:
        """How an answer is sampled."""
        return self.model_dump(include={"max_new_tokens", "temperature", "top_p", "seed"})

    def local_sampling(self) -> dict[str, Any]:
        """The same for the local model, which answers in batches."""
        return {**self.sampling(), "batch_size": self.batch_size}


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
    """Where preference pairs come from.

    offline   the annotated answers against ones made worse; `hot_temperature` samples answers worth rejecting
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

    def judge_sampling(self) -> dict[str, Any]:
        """How a verdict is sampled; nothing is cut from the judge's choices.

        Raises:
          ValueError: there is no judge.
        """
        if self.judge is None:
            raise ValueError("preferences.judge is not set; give it base_url and model")
        tuning = {"max_new_tokens": self.judge.max_new_tokens, "temperature": self.judge.temperature}
        return {**tuning, "top_p": 1.0, "seed": self.seed}

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

    rloo, grpo  against the reward model, with `num_generations` answers sampled to each of `prompts_per_step` prompts
    dpo         on preference pairs, `prompts_per_step` of them a step, `kl_coefficient` being its beta

    All are measured at the same `evaluation_prompts` held-out prompts, at `evaluations` points of the training.
    """

    method: Literal["rloo", "grpo", "dpo"]
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


class ReportSettings(Settings):
    """Reports; `baseline_samples` are drawn from the untrained base model, the baseline of epsilon zero."""

    baseline_samples: Positive
    examples: Positive
    mauve_buckets: Positive
    seed: int = 8


class Profile(Settings):
    """Everything public that a run depends on. Whether its settings fit together is asked by `consistency`."""

    name: PublicName
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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

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
        return self.sampling.arguments() | {"num_samples": self.report.baseline_samples, "seed": self.report.seed}

    @property
    def digest(self) -> str:
        """A short hash of every setting that can change a result, except those that `own_digest` covers.

        Another name, a raised budget, a further level or a declared number of units make nothing out of date, and
        another annotator or judge nothing above its own asset: sampling the pool again might give other texts, and
        their answers would have to be paid for, or written by people, again.
        """
        beside: dict[str, Any] = dict.fromkeys(("name", *OWN_SETTINGS.values()), True)
        beside["corpus"] = {"planned_levels", "budget_epsilon", "declared_units"}
        return _short_hash(self.model_dump_json(exclude=beside))

    def own_digest(self, asset: str) -> str | None:
        """A short hash of what decides this asset and no asset above it; None if there is nothing of the kind.

        That is a group of settings and the content of the file that it names. Raising a budget or moving a server or
        the file changes nothing.
        """
        if asset not in OWN_SETTINGS:
            return None
        settings: AnnotationSettings | PreferenceSettings = getattr(self, OWN_SETTINGS[asset])
        reads_file = settings.source in ("file", "human")
        content = _content_hash(settings.path) if reads_file and settings.path is not None else ""
        decisive = settings.model_dump_json(exclude={"endpoint": OPERATIONAL, "judge": OPERATIONAL, "path": True})
        return _short_hash(decisive + content)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content_hash(path: Path) -> str:
    """The hash of a file; one that is missing counts as a content of its own."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return MISSING_FILE
