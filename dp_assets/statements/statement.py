"""The privacy statement of a release: what is guaranteed, to whom, by what, and what is not.

A statement is a JSON value of facts, taken from the ledger and from what the mechanisms returned, and of the figures
that follow from them (`figures.py`). It carries the events themselves, so anyone can recompute every figure offline
(`verification.py`), and a digest over all of it. That proves arithmetic and integrity; that the events are the ones
which ran rests on the code and on the evidence, which are named in it by hash. `statement_pages.py` says the same for
people, and lists there how the statement answers NIST SP 800-226 and Ponomareva et al. (arXiv 2303.00654, section
5.3.3).
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dp_assets.privacy import accounting
from dp_assets.privacy.claim import without_number_of_continuations
from dp_assets.privacy.ledger import ChargeRecord, LedgerState
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.registration import Registration
from dp_assets.statements.figures import figures_of

FORMAT = 2
NO_VERSIONS: Mapping[str, str] = {}
PARTS = frozenset(
    [
        "format",
        "release",
        "terms",
        "budget",
        "charges",
        "cohorts",
        "plans",
        "accountant",
        "ledger",
        "evidence",
        "base_model",
        "source",
        "setting",
        "sampler",
        "randomness",
        "not_covered",
        "code",
        "configuration",
        "artifacts",
        "guarantee",
        "digest",
    ]
)
SETTING = {
    "model": "central differential privacy: a trusted curator holds the real instructions and runs the pipeline",
    "released": "the generator's adapter, synthetic instructions, their vectors and bins, noisy votes, models aligned"
    " on them, reports",
    "trusted": "the curator's operators and machines, who see private rows; whoever receives a release is not trusted",
    "outside the claim": "how the real instructions were collected, are stored and secured, and who may enter the"
    " private zone",
}
SAMPLER = "Poisson: each unit is drawn by itself with the same probability in every step, without a cap on the batch"
RANDOMNESS = {
    "noise_and_sampling": "operating-system entropy, drawn anew; not seeded, nothing is stored that could replay it",
    "public_steps": "public seeds: the adapter's start, samples of the generator, bins, selection, alignment",
}
NOT_COVERED = (
    "choices that a person made by looking at private rows or at the restricted report, such as tuning or when to stop",
    "run time, memory and whether a run failed or was resumed, which operators can see",
    "what the public base model and embedder learned from their own training data",
    "what other people wrote about a person: the unit is the author's rows, not mentions of somebody",
    "other corpora with some of the same rows: overlaps are the owner's to declare",
    "whether a query that reads the source gives each row by itself, beyond what its form shows: joins, views and"
    " databases other than DuckDB are the owner's to check",
    "with the unit instruction, a row that is edited or re-dated: it is another row then",
    "a budget that was raised after results were seen: the raised budget is the guarantee",
    "a person who writes under several user ids, or whose rows name no user and are kept: each id or row is a unit of"
    " its own",
    "that somebody asked to be erased: the number of erasures and their times show in the ledger and the snapshot",
    "whether released texts serve everybody alike: clipping and noise cost rare topics and small groups the most; the"
    " quality report shows how well the noisy votes are matched",
    "floating-point effects on gradients beyond the measured slack, and of their Gaussian noise, which is drawn in"
    " float64 and not discretised; votes are exact",
)


class StatementError(ValueError):
    """A statement that cannot be made, or whose figures do not follow from its own facts."""


def make_statement(
    state: LedgerState,
    corpus_id: str,
    plans: Sequence[PrivacyPlan],
    *,
    charge_ids: Sequence[str],
    evidence: Mapping[str, Mapping[str, Any]],
    base_model: str,
    source_kind: str,
    redacted: Sequence[str] = (),
    redacted_with: Mapping[str, str] = NO_VERSIONS,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """The statement of the release behind `charge_ids` as a JSON value.

    Args:
      plans: one for each privacy level that the release descends from.
      evidence: the public evidence of mechanisms, by charge id.
      redacted: kinds of personal data and secrets that were replaced in the real instructions; no figure counts on it.
      redacted_with: the libraries that recognised them, with their versions.
      provenance: `code`, `configuration` and `artifacts`, as hashes and public settings.

    Raises:
      StatementError: a charge is unknown, voided, of another corpus, or was made for another plan.
    """
    registration, by_level = state.registrations[corpus_id], {plan.level: plan for plan in plans}
    charges = [_checked_charge(state, corpus_id, by_level, charge_id) for charge_id in sorted(set(charge_ids))]
    if not charges:
        raise StatementError("the release descends from no charge, so there is nothing to state")
    facts = _facts(state, registration, by_level, charges) | {
        "evidence": _evidence(charges, by_level, evidence),
        "base_model": base_model,
        "source": {
            "kind": source_kind,
            "declared_public": registration.is_public,
            "redacted": list(redacted),
            "redacted_with": dict(redacted_with),
        },
        "setting": SETTING,
        "sampler": SAMPLER,
        "randomness": RANDOMNESS,
        "not_covered": list(NOT_COVERED),
        **provenance,
    }
    return sealed(facts | {"guarantee": figures_of(facts)})


def sealed(statement: Mapping[str, Any]) -> dict[str, Any]:
    """The statement with the digest of everything else in it."""
    content = {name: value for name, value in statement.items() if name != "digest"}
    return {**json.loads(canonical(content)), "digest": digest_of(content)}


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever its spelling."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """The one spelling of a JSON value that digests are taken of and events are compared in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checked_charge(
    state: LedgerState, corpus_id: str, plans: Mapping[str, PrivacyPlan], charge_id: str
) -> ChargeRecord:
    charge = state.charges.get(charge_id)
    if charge is None or charge.voided or charge.corpus_id != corpus_id:
        raise StatementError("the release descends from an unknown or voided charge, or from one of another corpus")
    plan = plans.get(charge.level)
    if plan is None or plan.digest != charge.plan_digest:
        raise StatementError("the release was made with another plan than the profile's; materialize it again")
    return charge


def _facts(
    state: LedgerState,
    registration: Registration,
    plans: Mapping[str, PrivacyPlan],
    charges: Sequence[ChargeRecord],
) -> dict[str, Any]:
    """What the ledger and the plans say about these charges and about the cohorts that they belong to."""
    cohorts = sorted({charge.cohort for charge in charges})
    levels = sorted({charge.level for charge in charges})
    return {
        "format": FORMAT,
        "release": {"cohorts": cohorts, "levels": levels},
        "terms": _terms(registration),
        "budget": budget_form(state, registration),
        "charges": [_charge_form(charge) for charge in charges],
        "cohorts": {cohort: cohort_form(state, registration.corpus_id, cohort) for cohort in cohorts},
        "plans": {level: plans[level].to_json() for level in levels},
        "accountant": accountant_form(),
        "ledger": {
            "corpus_id": registration.corpus_id,
            "charge_ids": [charge.charge_id for charge in charges],
            "head": state.anchor.head,
        },
    }


def _terms(registration: Registration) -> dict[str, Any]:
    return {
        "unit": str(registration.unit),
        "unit_in_words": registration.unit_in_words,
        "without_user": str(registration.without_user),
        "max_rows_per_unit": registration.max_rows_per_unit,
        "relation": registration.relation,
        "delta": registration.delta,
        "gate_order": registration.gate_order,
    }


def budget_form(state: LedgerState, registration: Registration) -> dict[str, Any]:
    """What a statement says of a corpus's budget."""
    raised = [raised for raised in state.raises if raised.corpus_id == registration.corpus_id]
    return {
        "epsilon": registration.budget_epsilon,
        "raised": [{"at": one.at, "from": one.before, "to": one.after} for one in raised],
    }


def _charge_form(charge: ChargeRecord) -> dict[str, Any]:
    return {
        "charge_id": charge.charge_id,
        "corpus_id": charge.corpus_id,
        "cohort": charge.cohort,
        "level": charge.level,
        "mechanism": charge.mechanism,
        "booked_beforehand": charge.booking_id is not None,
        "plan_digest": charge.plan_digest,
        "event": dict(charge.event),
    }


def _evidence(
    charges: Sequence[ChargeRecord], plans: Mapping[str, PrivacyPlan], evidence: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The evidence as it is published: releases of earlier versions carry a number that may follow from a row."""
    levels = {charge.charge_id: charge.level for charge in charges}
    return {
        charge_id: dict(without_number_of_continuations(plans[levels[charge_id]].dpsgd, public))
        if charge_id in levels
        else dict(public)
        for charge_id, public in evidence.items()
    }


def cohort_form(state: LedgerState, corpus_id: str, cohort: str) -> dict[str, Any]:
    """What a statement says of everything booked or charged for a cohort."""
    return {
        "booked": [dict(form) for form in state.booked_forms(corpus_id, cohort)],
        "later": [dict(form) for form in state.later_forms(corpus_id, cohort)],
        "closed": (corpus_id, cohort) in state.closed,
    }


def accountant_form() -> dict[str, Any]:
    """The accountant of this installation, with the grids of its privacy loss distributions."""
    return {
        "library": f"dp-accounting {importlib.metadata.version('dp-accounting')}",
        "method": "privacy loss distributions (PLD), pessimistic; the adaptive gate by Renyi DP; figures rounded up",
        "discretisation": accounting.CERTIFIED_DISCRETIZATION,
        "discretisation_of_rates": accounting.CERTIFIED_DISCRETIZATION,
        "discretisation_of_groups": accounting.GROUP_DISCRETIZATION,
    }
