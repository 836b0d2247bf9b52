"""The privacy metadata of an artifact: one list of keys, and the functions that fill them.

Every released artifact of a cohort carries two epsilons.

- The cohort's epsilon bounds everything ever charged or booked for the people of the cohort (`headline.py`). It holds
  also when somebody chose what to run or release after seeing results.
- The lineage's epsilon covers this artifact alone, and holds when its plan and release were fixed beforehand.

A private artifact has no epsilon, since it is not a release. A statement also names what was spent and the budget,
either of which may change later.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dp_assets.privacy import accounting
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.headline import Guarantee
from dp_assets.privacy.labels import LABEL_METADATA, NO_DP, Label, Zone, zone
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan
from dp_assets.privacy.registration import Registration
from dp_assets.privacy.units import relation_in_words

UNIT = "privacy/unit"
RELATION = "privacy/relation"
DELTA = "privacy/delta"
COHORT_EPSILON = "privacy/cohort_epsilon"
LINEAGE_EPSILON = "privacy/lineage_epsilon"
LEDGER_IDS = "privacy/ledger_ids"
EVENT = "privacy/event"
NOISE_MULTIPLIER = "privacy/noise_multiplier"
EPSILON = "privacy/epsilon"
SPENT_EPSILON = "privacy/spent_epsilon"
BUDGET_EPSILON = "privacy/budget_epsilon"

ARTIFACT_KEYS = (LABEL_METADATA, UNIT, RELATION, DELTA, COHORT_EPSILON, LINEAGE_EPSILON, LEDGER_IDS)
MECHANISM_KEYS = (EVENT, NOISE_MULTIPLIER, EPSILON)
STATEMENT_KEYS = (SPENT_EPSILON, BUDGET_EPSILON)
PROFILE = "dp_instructions/profile"
CORPUS = "dp_instructions/corpus"  # the corpus's random id, which tells data folders under one Dagster instance apart
SNAPSHOT = "dp_instructions/snapshot"
OWN_SETTINGS = "dp_instructions/own_settings"
PUBLIC_SOURCE = "privacy/public_source"  # set beside figures of rows, and only where their source is registered public
RESTRICTED = "restricted/"
PRIVATE_KEYS = frozenset((*ARTIFACT_KEYS, PROFILE, CORPUS, SNAPSHOT))
SIGNAL_TO_NOISE, BASE_DTYPE = "signal_to_noise", "base_dtype"
RECORD_KEYS = {GENERATOR: frozenset((SIGNAL_TO_NOISE, BASE_DTYPE))}
"""What the record of a mechanism's release holds besides its evidence and what its rows were made with."""
FIGURE_KEYS = {GENERATOR: frozenset([SIGNAL_TO_NOISE]), HISTOGRAM: frozenset(["dagster/row_count"])}
"""What a mechanism's asset shows besides `MECHANISM_KEYS`: public constants, and the row count of a planned size."""
MADE_WITH_MODELS = frozenset(["embedder"])
MADE_WITH_VERSION = re.compile(r"(presidio-analyzer|phonenumbers|spacy|[a-z]{2,3}_\w+) \d+(\.\w+)+", re.ASCII)
NOT_A_RELEASE = "private, not a release"


class PrivateFigure(ValueError):
    """A private artifact was about to be described by more than the terms of its corpus."""


class FurtherFigure(ValueError):
    """A mechanism was about to publish more than the figures declared for it."""


class ForeignLineage(PublicError, ValueError):
    """An artifact was about to be made from inputs whose charges its figures could not state."""


def private_metadata(registration: Registration) -> dict[str, Any]:
    """Return the metadata of a private artifact: the terms of its corpus, and no figure that depends on a row."""
    return _terms(registration, Label.PRIVATE) | {
        COHORT_EPSILON: NOT_A_RELEASE,
        LINEAGE_EPSILON: NOT_A_RELEASE,
        LEDGER_IDS: [],
    }


def check_private_keys(keys: Iterable[str]) -> None:
    """Refuse metadata of a private artifact beyond the allow-list, because the event log lies outside the private zone.

    Figures of rows whose owner registered them as public have `RESTRICTED` keys, with `PUBLIC_SOURCE` beside them.

    Raises:
      PrivateFigure: another key is not in `PRIVATE_KEYS`; the message names keys only.
    """
    keys = set(keys)
    if PUBLIC_SOURCE in keys:
        keys = {key for key in keys - {PUBLIC_SOURCE} if not key.startswith(RESTRICTED)}
    if further := sorted(keys - PRIVATE_KEYS):
        raise PrivateFigure(
            f"metadata {', '.join(further)} on a private asset: what describes private rows would leave the private"
            " zone; drop it, or list the key in privacy/metadata.py if its value never depends on a row"
        )


def check_mechanism_keys(mechanism: str, keys: Iterable[str]) -> None:
    """Refuse metadata of a mechanism's asset beyond what is declared for it.

    Raises:
      FurtherFigure: a key is not declared; the message names keys only.
    """
    _require_none(sorted(set(keys) - {*MECHANISM_KEYS, *FIGURE_KEYS.get(mechanism, ())}), f"metadata of {mechanism}")


def check_made_with(made_with: Mapping[str, Any]) -> None:
    """Refuse entries about what private rows were made with, beyond models and versions: they are published.

    Raises:
      FurtherFigure: a key is unknown, or a value is no text of its kind; the message names keys only.
    """
    unknown = [name for name, value in made_with.items() if not _is_maker(name, value)]
    _require_none(sorted(unknown), "what private rows were made with")


def _is_maker(name: str, value: Any) -> bool:
    is_version = MADE_WITH_VERSION.fullmatch(f"{name} {value}") is not None
    return isinstance(value, str) and (name in MADE_WITH_MODELS or is_version)


def _require_none(further: Sequence[str], location: str) -> None:
    if further:
        raise FurtherFigure(
            f"{', '.join(further)} in {location} would be published and is not declared; drop it, or list it in"
            " privacy/metadata.py if its value never depends on a private row"
        )


def artifact_metadata(
    state: LedgerState,
    registration: Registration,
    *,
    label: Label,
    cohort: str | None,
    level: str | None,
    charge_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the metadata of a mechanism's release, or of an artifact downstream of it.

    The cohort's epsilon is infinite where nothing is guaranteed: in a closed cohort, and without noise.

    Args:
      state: the totals of the ledger.
      registration: the corpus of the artifact.
      label: the privacy label of the asset.
      cohort, level: those of the artifact's own partition; None where it has none. Its inputs may belong to other
        cohorts and levels of the corpus. The headline is then the worst of all cohorts involved.
      charge_ids: the charges behind the artifact.

    Raises:
      ForeignLineage: the artifact descends from an unknown or voided charge or one of another corpus, or would carry a
        run without noise into the released zone.
    """
    charges = check_lineage(state, registration, place=zone(label, level), charge_ids=charge_ids)
    cohorts = {charge.cohort for charge in charges} | ({cohort} if cohort is not None else set())
    unprotected = level == NO_DP or any(charge.level == NO_DP for charge in charges)
    guarantee = state.guarantee(registration.corpus_id, cohorts, without_noise=unprotected)
    return _terms(registration, Label.PRIVATE if zone(label, level) is Zone.PRIVATE else label) | {
        COHORT_EPSILON: guarantee.epsilon,
        LINEAGE_EPSILON: state.lineage_epsilon(charge_ids),
        LEDGER_IDS: list(charge_ids),
    }


def check_lineage(
    state: LedgerState, registration: Registration, *, place: Zone, charge_ids: Sequence[str]
) -> list[ChargeRecord]:
    """Return the charges behind an artifact that is to be stored in the zone `place`.

    Raises:
      ForeignLineage: a charge is unknown, voided or of another corpus, or a run without noise would be released.
    """
    charges = [state.charges.get(charge_id) for charge_id in charge_ids]
    known = [charge for charge in charges if charge is not None and not charge.voided]
    if len(known) < len(charges) or any(charge.corpus_id != registration.corpus_id for charge in known):
        raise ForeignLineage(
            "an input descends from a charge of another corpus, or from a voided or unknown one; materialize the"
            " partition from dp_generator down again"
        )
    if place is Zone.RELEASED and any(charge.level == NO_DP for charge in known):
        raise ForeignLineage(
            "an input was made without noise (level no-dp), and nothing made from it may be released; read private"
            " levels only, or make this at the level no-dp"
        )
    return known


def joint_metadata(state: LedgerState, charge_ids: Sequence[str]) -> dict[str, Any]:
    """Return what released artifacts cost together, as a JSON value: composition over the union of their charges.

    An unbounded epsilon is null. Cohorts of several corpora may share people, so each cohort is listed by itself.

    Raises:
      ForeignLineage: a charge is unknown to this ledger, or voided.
    """
    charges = [state.charges.get(charge_id) for charge_id in charge_ids]
    known = [charge for charge in charges if charge is not None and not charge.voided]
    if len(known) < len(charges):
        raise ForeignLineage("an artifact descends from a charge that this ledger does not know, or that was voided")
    cohorts = sorted({(charge.corpus_id, charge.cohort) for charge in known})
    return {
        "charge_ids": list(charge_ids),
        "lineage_epsilon": _json_number(state.lineage_epsilon(charge_ids)),
        "cohorts": [_cohort_figures(state, *cohort) for cohort in cohorts],
    }


def _cohort_figures(state: LedgerState, corpus_id: str, cohort: str) -> dict[str, Any]:
    return {
        "corpus_id": corpus_id,
        "cohort": cohort,
        **headline_form(state.guarantee(corpus_id, [cohort], without_noise=False)),
    } | {"delta": state.registrations[corpus_id].delta}


def headline_form(guarantee: Guarantee) -> dict[str, Any]:
    """Return a guarantee as a JSON value; an unbounded epsilon is null."""
    return {
        "headline_epsilon": _json_number(guarantee.epsilon),
        "headline_basis": str(guarantee.basis),
        "spent_epsilon": _json_number(guarantee.spent),
        "budget_epsilon": guarantee.budget,
    }


def statement_metadata(guarantee: Guarantee) -> dict[str, Any]:
    """Return what a statement adds to the metadata of an artifact, so that it can be compared with the ledger later."""
    return {SPENT_EPSILON: guarantee.spent, BUDGET_EPSILON: guarantee.budget}


def _json_number(value: float) -> float | None:
    return None if math.isinf(value) else value


def mechanism_metadata(plan: PrivacyPlan, mechanism: str) -> dict[str, Any]:
    """Return what a mechanism adds: its event, its noise and the epsilon of this spend alone."""
    event = plan.events[mechanism]
    noise = plan.dpsgd.noise_multiplier if mechanism == GENERATOR else plan.votes.noise_stddev
    return {
        EVENT: event_to_json(event),
        NOISE_MULTIPLIER: noise,
        EPSILON: accounting.epsilon(event, plan.delta),
    }


def _terms(registration: Registration, label: Label) -> dict[str, Any]:
    return {
        LABEL_METADATA: str(label),
        UNIT: f"{registration.unit_in_words}, at most {registration.max_rows_per_unit} rows",
        RELATION: relation_in_words(registration.relation),
        DELTA: registration.delta,
    }
