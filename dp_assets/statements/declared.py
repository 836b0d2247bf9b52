"""The declared facts of a statement: those that nothing in it proves and that a verifier takes as given.

Everything else in a statement follows from them (`statement.py`). The verifier reads them by the schema below, builds
the statement anew and compares. So anything else in a document either equals what is built or is refused.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from dp_assets.privacy.plan import DpSgdPlan, PrivacyPlan, VotesPlan, target_of
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from dp_assets.statements.reading import MOST_LETTERS, StatementError, canonical

PROBLEMS_SHOWN = 5
MOST_CHARGES = 5_000

# Ranges are explicit, because \w and \d would allow similar letters and digits of other scripts.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{8,15}(Z|[+-][0-9]{2}:[0-9]{2}))?$")]
Library = Annotated[str, Field(pattern=r"^dp-accounting [0-9][0-9a-z.+]{0,31}$")]
Place = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9_+-][A-Za-z0-9._+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9._+-]*$", max_length=300)
]
# Ids of a hub, names of packages, and paths. Any other character is replaced by _ (`model_name`).
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/:@+~\\-]{1,300}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
PositiveReal = Annotated[float, Field(gt=0)]
EventForm = dict[str, JsonValue]
Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    """A model without coercion: a text is not a number, true is not 1.

    Further fields are ignored here; they are compared with the statement that is built.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Terms(_Strict):
    """The registered terms on which the figures rest."""

    unit: PrivacyUnit
    without_user: WithoutUser
    max_rows_per_unit: Positive
    delta: Annotated[float, Field(gt=0, lt=1)]
    gate_order: Positive


class Raise(_Strict):
    """One raise of the budget."""

    at: Moment
    before: PositiveReal = Field(alias="from")
    after: PositiveReal = Field(alias="to")


class Budget(_Strict):
    """The budget of each cohort, and the raises that led to it."""

    epsilon: PositiveReal
    raised: tuple[Raise, ...]


class Charge(_Strict):
    """One charge of the release. Its event and the digest of its plan follow from the plan."""

    charge_id: Name
    cohort: Name
    level: Name
    mechanism: Identifier
    booked_beforehand: bool


class Cohort(_Strict):
    """Everything booked or charged for a cohort, as events in the form of `privacy/events.py`."""

    booked: tuple[EventForm, ...]
    later: tuple[EventForm, ...]
    closed: bool


class DpSgd(_Strict):
    """The constants of the generator's training."""

    sampling_probability: float
    steps: int
    spare_steps: int
    l2_clip_norm: float
    noise_multiplier: float
    expected_batch_size: int

    @property
    def plan(self) -> DpSgdPlan:
        """The plan with these constants."""
        return DpSgdPlan(
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            spare_steps=self.spare_steps,
            l2_clip_norm=self.l2_clip_norm,
            noise_multiplier=self.noise_multiplier,
            expected_batch_size=self.expected_batch_size,
        )


class Votes(_Strict):
    """The constants of the noisy votes."""

    num_bins: int
    noise_stddev: float

    @property
    def plan(self) -> VotesPlan:
        """The plan with these constants."""
        return VotesPlan(self.num_bins, self.noise_stddev)


class Plan(_Strict):
    """The constants of a level's plan. Its unit, contribution bound and delta are those of the terms."""

    dpsgd: DpSgd
    votes: Votes


class LedgerEnd(_Strict):
    """The corpus, and the head of the ledger when the statement was made."""

    corpus_id: Name
    head: Sha256


class Source(_Strict):
    """The source of the real instructions. No figure relies on it, but a run without noise needs a public source."""

    kind: Identifier
    declared_public: bool
    redacted: tuple[Identifier, ...]
    redacted_with: dict[Name, Name]


class Code(_Strict):
    """The source code that made the statement."""

    package: Name
    version: Name
    sha256: Sha256


class Configuration(_Strict):
    """The public settings of the profile, and its digest as in metadata."""

    profile_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    profile: dict[str, JsonValue]


class Accountant(_Strict):
    """The library that computed the figures."""

    library: Library


class Fingerprint(_Strict):
    """The number of names, and a hash of them."""

    model_config = ConfigDict(extra="forbid")

    count: Count
    sha256: Sha256


class SourceSettings(_Strict):
    """The part of the source's settings that a statement uses."""

    kind: Identifier


class CorpusSettings(_Strict):
    """The part of the corpus settings that a statement uses."""

    source: SourceSettings
    redact: tuple[Identifier, ...]
    unit: PrivacyUnit
    without_user: WithoutUser = WithoutUser.OWN_UNIT
    max_rows_per_unit: int
    delta: float
    declared_units: Positive | None = None


class GeneratorSettings(_Strict):
    """The part of the generator's settings that a statement uses."""

    sampling_probability: float
    steps: int
    spare_steps: int
    l2_clip_norm: float
    expected_batch_size: int


class Settings(_Strict):
    """The settings of a profile from which plans are made."""

    corpus: CorpusSettings
    generator: GeneratorSettings
    votes: Votes


class Declared(_Strict):
    """Every fact of a statement that is taken as given."""

    terms: Terms
    budget: Budget
    charges: Annotated[tuple[Charge, ...], Field(min_length=1, max_length=MOST_CHARGES)]
    cohorts: dict[Name, Cohort]
    plans: dict[Name, Plan]
    accountant: Accountant
    ledger: LedgerEnd
    evidence: dict[Name, dict[Identifier, Count | float | str | Fingerprint]]
    base_model: ModelName
    source: Source
    code: Code
    configuration: Configuration
    files: dict[Place, Sha256]

    def plan(self, level: str) -> PrivacyPlan:
        """Return the plan of a level, under the statement's terms."""
        stated = self.plans[level]
        return PrivacyPlan(
            level=level,
            target_epsilon=target_of(level),
            delta=self.terms.delta,
            unit=self.terms.unit,
            max_rows_per_unit=self.terms.max_rows_per_unit,
            dpsgd=stated.dpsgd.plan,
            votes=stated.votes.plan,
        )

    def observed(self, charge_id: str) -> dict[str, Any]:
        """Return the evidence of a charge."""
        items = self.evidence.get(charge_id, {}).items()
        return {name: plain(item) if isinstance(item, Fingerprint) else item for name, item in items}

    def settings(self) -> Settings:
        """Return the settings of the profile from which plans are made.

        Raises:
          StatementError: a setting is missing or has another type.
        """
        return _read(Settings, self.configuration.profile, "configuration.profile.")


def declared_as(model: type[Model], value: Any) -> dict[str, Any]:
    """Return the JSON value of a declared part.

    Raises:
      StatementError: it is missing, or has another type.
    """
    return plain(_read(model, value, ""))


def declared(statement: Mapping[str, Any]) -> Declared:
    """Return the facts that a statement, or the maker of one, declares.

    Raises:
      StatementError: a fact is missing or has another type. The first few are named.
    """
    return _read(Declared, statement, "")


def _read(model: type[Model], value: Any, prefix: str) -> Model:
    try:
        return model.model_validate_json(canonical(value))
    except ValidationError as error:
        named = [
            f"{prefix}{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise StatementError("; ".join(named[:PROBLEMS_SHOWN])[:MOST_LETTERS]) from None
    except (TypeError, ValueError, RecursionError):
        raise StatementError("it holds a value that JSON cannot represent, or is nested too deeply") from None


def model_name(name: str) -> str:
    """Return the name or path of a model in the form that a statement may hold."""
    return re.sub(r"[^A-Za-z0-9._/:@+~\\-]", "_", name)[:300]


def plain(model: BaseModel) -> dict[str, Any]:
    """Return the JSON value of a declared model."""
    value: dict[str, Any] = json.loads(model.model_dump_json(by_alias=True))
    return value
