"""The privacy metadata of an artifact: one list of keys, and the functions that fill them.

Two epsilons stand on every artifact. The cohort's covers everything ever charged or booked for its people: it is the
headline, and holds when somebody chose what to run or release after seeing results. The lineage's covers this artifact
alone, and holds when its plan and release were fixed beforehand. A private artifact has no epsilon, since it is no
release.
"""

import math
from collections.abc import Sequence
from typing import Any

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.labels import LABEL_METADATA, NO_DP, Label, Zone, zone
from dp_assets.privacy.ledger import LedgerState
from dp_assets.privacy.plan import GENERATOR, PrivacyPlan
from dp_assets.privacy.registration import Registration

LABEL = LABEL_METADATA
UNIT = "privacy/unit"
RELATION = "privacy/relation"
DELTA = "privacy/delta"
COHORT_EPSILON = "privacy/cohort_epsilon"
LINEAGE_EPSILON = "privacy/lineage_epsilon"
LEDGER_IDS = "privacy/ledger_ids"
EVENT = "privacy/event"
NOISE_MULTIPLIER = "privacy/noise_multiplier"
EPSILON = "privacy/epsilon"

ARTIFACT_KEYS = (LABEL, UNIT, RELATION, DELTA, COHORT_EPSILON, LINEAGE_EPSILON, LEDGER_IDS)
MECHANISM_KEYS = (EVENT, NOISE_MULTIPLIER, EPSILON)
NOT_A_RELEASE = "private, not a release"


class ForeignLineage(ValueError):
    """An artifact was about to be made from inputs that belong to another corpus or partition."""


def private_metadata(registration: Registration) -> dict[str, Any]:
    """The metadata of a private artifact: its terms, and no figure that depends on a row."""
    return _terms(registration, Label.PRIVATE) | {
        COHORT_EPSILON: NOT_A_RELEASE,
        LINEAGE_EPSILON: NOT_A_RELEASE,
        LEDGER_IDS: [],
    }


def artifact_metadata(
    state: LedgerState,
    registration: Registration,
    *,
    label: Label,
    cohort: str,
    level: str,
    charge_ids: Sequence[str],
) -> dict[str, Any]:
    """The metadata of a mechanism's release or of an artifact below it. Without noise, both epsilons are infinite.

    Raises:
      ForeignLineage: the artifact descends from a charge of another corpus, cohort or level, or from a voided one.
    """
    check_lineage(state, registration, cohort=cohort, level=level, charge_ids=charge_ids)
    unprotected = level == NO_DP
    return _terms(registration, Label.PRIVATE if zone(label, level) is Zone.PRIVATE else label) | {
        COHORT_EPSILON: math.inf if unprotected else state.cohort_epsilon(registration.corpus_id, cohort),
        LINEAGE_EPSILON: state.lineage_epsilon(charge_ids),
        LEDGER_IDS: list(charge_ids),
    }


def check_lineage(
    state: LedgerState, registration: Registration, *, cohort: str, level: str, charge_ids: Sequence[str]
) -> None:
    """Refuse an artifact whose inputs were made for another corpus or partition: its figures would leave charges out.

    Raises:
      ForeignLineage: a charge is unknown, voided, or belongs to another corpus, cohort or level.
    """
    place = (registration.corpus_id, cohort, level)
    for charge_id in charge_ids:
        charge = state.charges.get(charge_id)
        if charge is None or charge.voided or (charge.corpus_id, charge.cohort, charge.level) != place:
            raise ForeignLineage(
                "an input descends from a charge of another corpus, cohort or level, or from a voided one; materialize"
                " the partition from dp_generator down again"
            )


def mechanism_metadata(plan: PrivacyPlan, mechanism: str) -> dict[str, Any]:
    """What a mechanism adds: its event, its noise and the epsilon of this spend alone."""
    event = plan.events[mechanism]
    noise = plan.dpsgd.noise_multiplier if mechanism == GENERATOR else plan.votes.noise_stddev
    return {
        EVENT: event_to_json(event),
        NOISE_MULTIPLIER: noise,
        EPSILON: accounting.epsilon(event, plan.delta),
    }


def _terms(registration: Registration, label: Label) -> dict[str, Any]:
    return {
        LABEL: str(label),
        UNIT: f"{registration.unit.in_words}, at most {registration.max_rows_per_unit} rows",
        RELATION: registration.relation,
        DELTA: registration.delta,
    }
