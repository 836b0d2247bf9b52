"""The corpus settings: where its rows come from, how they are prepared, and the terms of its registration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from dp_assets.fields import VARIABLE_NAME, Fraction, Positive, PositiveReal, PublicName, Settings
from dp_assets.privacy.units import PrivacyUnit, WithoutUser

PresetName = Literal[
    "lmsys/lmsys-chat-1m", "lmsys/chatbot_arena_conversations", "OpenAssistant/oasst1", "allenai/WildChat-1M"
]
PRESET_NAMES: tuple[str, ...] = get_args(PresetName)
CohortKind = Literal["all", "month", "quarter", "year", "user_bucket"]
Turn = Literal["any", "first", "last", "never"]
RedactedKind = Literal["secret", "email", "iban", "crypto", "ip", "card", "ssn", "phone", "person", "place"]
"""In the order of replacement. Secrets come first, because a key may contain what looks like a number; names last."""
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")


class PresetSteps(Settings):
    """Which rows of a preset's data set to keep. Empty `languages` keep all; `drop_flagged` says which turn counts."""

    languages: tuple[str, ...] = ("en",)
    drop_redacted: bool = True
    drop_flagged: Turn = "any"


class SourceSettings(Settings):
    """Where the real instructions come from. `columns` maps our names (`text`, `user_id`, ...) to the source's.

    chitchat     the packaged public corpus
    file         a file or a folder of files at `path`
    huggingface  the `split` of a `dataset` of the hub, or of a local copy at `path`. A data set with a preset, or with
                 the same layout as the one named in `preset`, needs no `columns`
    sql          the SELECT `query` on the DuckDB file at `path`, on the files that the query names, or on the database
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
        """The preset: the named one, else that of the data set's own name."""
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
            raise ValueError("the preset defines the columns; leave `columns` out")
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
    """The fixed list of disjoint sets of units. `first` and `last` bound a list of months, quarters or years."""

    kind: CohortKind = "all"
    num_buckets: Positive | None = None
    first: str | None = None
    last: str | None = None


class CorpusSettings(Settings):
    """The registered terms of a corpus and of its preparation, which treats each unit independently of all others.

    name             a public name under which the corpus is registered, instead of its source's location
    without_user     what happens to rows that name no user where users are the units
    redact           which recognizable forms are replaced: defense in depth, on which no figure relies
    phone_regions    the regions whose telephone numbers are recognized without a country code
    redaction_model  the spaCy pipeline that recognizes people and places: an installed one or a folder
    declared_units   a public upper bound on the units of the largest cohort. The owner states it and nothing counts it;
                     its only effect is that settings that do not fit it are refused
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
    phone_regions: tuple[str, ...] = PHONE_REGIONS
    redaction_model: str | None = None
    train_fraction: Fraction
    cohorts: CohortSettings = CohortSettings()
    declared_units: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=1)]
    budget_epsilon: PositiveReal
    planned_levels: tuple[PublicName, ...]
