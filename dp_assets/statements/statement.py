"""The privacy statement of a release: what is guaranteed, to whom, by which mechanisms, and what is not.

A statement is a JSON value. It declares facts, taken from the ledger and from what the mechanisms returned
(`declared.py`), and states what follows from them, including the figures (`figures.py`). Making and verifying a
statement call the same `completed` on the declared facts, so any other difference is detected. A statement contains the
events themselves and a digest over all of it. This proves arithmetic and integrity. That these events are the ones that
ran rests on the code and the evidence; the statement names the code by hash. `statement_pages.py` presents the same for
people, and lists how the statement answers NIST SP 800-226 and Ponomareva et al. (arXiv 2303.00654, section 5.3.3).
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dp_assets.privacy import accounting
from dp_assets.privacy.claim import without_number_of_continuations
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.registration import Registration
from dp_assets.privacy.units import RELATION, unit_in_words
from dp_assets.statements.declared import Charge, Declared, declared, model_name, plain
from dp_assets.statements.figures import figures_of
from dp_assets.statements.reading import StatementError, canonical

FORMAT = 3
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


@dataclass(frozen=True)
class StatedSource:
    """The source of the real instructions, as a statement describes it. No figure relies on it.

    kind           the kind of the source, such as "file"
    redacted       kinds of personal data and secrets that were replaced
    redacted_with  the libraries that recognized them, with their versions
    """

    kind: str
    redacted: Sequence[str]
    redacted_with: Mapping[str, str]


def make_statement(
    state: LedgerState,
    corpus_id: str,
    plans: Sequence[PrivacyPlan],
    *,
    charge_ids: Sequence[str],
    evidence: Mapping[str, Mapping[str, Any]],
    base_model: str,
    source: StatedSource,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the statement of the release behind `charge_ids` as a JSON value.

    Args:
      state: the ledger.
      corpus_id: the corpus of the release.
      plans: one for each privacy level that the release descends from.
      charge_ids: the charges that the release descends from.
      evidence: the public evidence of mechanisms, by charge id.
      base_model: the name or path of the base model.
      source: what is said of the real instructions.
      provenance: `code`, `configuration` and `files`, as hashes and public settings.

    Raises:
      StatementError: a charge is unknown, voided, of another corpus, or was made for another plan; or a fact has a form
        that no statement may hold.
    """
    by_level = {plan.level: plan for plan in plans}
    charges = [_checked_charge(state, corpus_id, by_level, charge_id) for charge_id in sorted(set(charge_ids))]
    if not charges:
        raise StatementError("the release descends from no charge, so there is nothing to state")
    facts = of_ledger(state, state.registrations[corpus_id], charges) | {
        "plans": {charge.level: by_level[charge.level].to_json() for charge in charges},
        "accountant": accountant_form(),
        "evidence": _published(charges, by_level, evidence),
        "base_model": model_name(base_model),
        "source": {
            "kind": source.kind,
            "declared_public": state.registrations[corpus_id].is_public,
            "redacted": list(source.redacted),
            "redacted_with": dict(source.redacted_with),
        },
        **provenance,
    }
    return with_figures(completed(declared(facts)))


def completed(facts: Declared) -> dict[str, Any]:
    """Return everything that a statement with these facts says, except the figures and the digest.

    Raises:
      StatementError: a charge names an unknown level, mechanism or event.
    """
    terms, ledger, configuration = facts.terms, plain(facts.ledger), plain(facts.configuration)
    try:
        plans = {level: facts.plan(level) for level in sorted(facts.plans)}
        charges = [_charge_form(charge, plans[charge.level], ledger["corpus_id"]) for charge in facts.charges]
        charges.sort(key=lambda charge: str(charge["charge_id"]))
        cohorts = {
            name: plain(cohort) | _events(booked=cohort.booked, later=cohort.later)
            for name, cohort in facts.cohorts.items()
        }
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise StatementError(f"a plan, a charge or an event is unknown: {error}") from None
    return {
        "format": FORMAT,
        "release": {name: sorted({charge[name[:-1]] for charge in charges}) for name in ("cohorts", "levels")},
        "terms": plain(terms)
        | {"unit_in_words": unit_in_words(terms.unit, terms.without_user), "relation": RELATION.name},
        "budget": plain(facts.budget),
        "charges": charges,
        "cohorts": cohorts,
        "plans": {level: plan.to_json() for level, plan in plans.items()},
        "accountant": accountant_form() | plain(facts.accountant),
        "ledger": ledger | {"charge_ids": [charge["charge_id"] for charge in charges]},
        "evidence": {charge_id: facts.observed(charge_id) for charge_id in facts.evidence},
        "base_model": facts.base_model,
        "source": plain(facts.source),
        "setting": SETTING,
        "sampler": SAMPLER,
        "randomness": RANDOMNESS,
        "not_covered": list(NOT_COVERED),
        "code": plain(facts.code),
        "configuration": configuration | {"sha256": digest_of(configuration["profile"])},
        "files": facts.files,
    }


def with_figures(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole statement: the result of `completed`, the figures that follow from it, and the digest.

    Raises:
      StatementError: the events cannot be accounted for.
    """
    try:
        return sealed({**facts, "guarantee": figures_of(facts)})
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise StatementError(f"the events cannot be accounted for: {error}") from None


def restated(statement: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """Return the statement with some declared facts replaced, and with what follows from the new ones.

    Raises:
      StatementError: a fact has a form that no statement may hold.
    """
    return with_figures(completed(declared({**statement, **changed})))


def sealed(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statement with the digest of everything else in it."""
    content = {name: value for name, value in statement.items() if name != "digest"}
    return {**json.loads(canonical(content)), "digest": digest_of(content)}


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _checked_charge(
    state: LedgerState, corpus_id: str, plans: Mapping[str, PrivacyPlan], charge_id: str
) -> ChargeRecord:
    charge = state.charges.get(charge_id)
    if charge is None or charge.voided or charge.corpus_id != corpus_id:
        raise StatementError("the release descends from an unknown or voided charge, or from one of another corpus")
    plan = plans.get(charge.level)
    event = None if plan is None else plan.events.get(charge.mechanism)
    same = event is not None and canonical(event_to_json(event)) == canonical(dict(charge.event))
    if plan is None or plan.digest != charge.plan_digest or not same:
        raise StatementError("the release was made with another plan than the profile's; materialize it again")
    return charge


def _published(
    charges: Sequence[ChargeRecord], plans: Mapping[str, PrivacyPlan], evidence: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the evidence to publish, without a number in releases of earlier versions that may follow from a row."""
    levels = {charge.charge_id: charge.level for charge in charges}
    return {
        charge_id: dict(without_number_of_continuations(plans[levels[charge_id]].dpsgd, public))
        for charge_id, public in evidence.items()
        if charge_id in levels
    }


def of_ledger(state: LedgerState, registration: Registration, charges: Sequence[ChargeRecord]) -> dict[str, Any]:
    """Return what a ledger says about these charges and their cohorts."""
    corpus_id = registration.corpus_id
    return {
        "terms": {
            "unit": str(registration.unit),
            "without_user": str(registration.without_user),
            "max_rows_per_unit": registration.max_rows_per_unit,
            "delta": registration.delta,
            "gate_order": state.gate_order(corpus_id),
        },
        "budget": {
            "epsilon": registration.budget_epsilon,
            "raised": [
                {"at": step.at, "from": step.before, "to": step.after}
                for step in state.raises
                if step.corpus_id == corpus_id
            ],
        },
        "charges": [
            {
                "charge_id": charge.charge_id,
                "cohort": charge.cohort,
                "level": charge.level,
                "mechanism": charge.mechanism,
                "booked_beforehand": charge.booking_id is not None,
            }
            for charge in charges
        ],
        "cohorts": {
            cohort: {
                "booked": [dict(form) for form in state.booked_forms(corpus_id, cohort)],
                "later": [dict(form) for form in state.later_forms(corpus_id, cohort)],
                "closed": state.is_closed(corpus_id, cohort),
            }
            for cohort in sorted({charge.cohort for charge in charges})
        },
        "ledger": {"corpus_id": corpus_id, "head": state.anchor.head},
    }


def _charge_form(charge: Charge, plan: PrivacyPlan, corpus_id: str) -> dict[str, Any]:
    event = plan.events.get(charge.mechanism)
    if event is None:
        raise StatementError(f"charge {charge.charge_id} names no mechanism of a plan")
    derived = {"corpus_id": corpus_id, "plan_digest": plan.digest, "event": event_to_json(event)}
    return plain(charge) | derived


def _events(**forms: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return events as this version writes them, so that unknown fields in an event are detected."""
    return {name: [event_to_json(event_from_json(form)) for form in listed] for name, listed in forms.items()}


def accountant_form() -> dict[str, Any]:
    """Return the accountant of this installation, with the grids of its privacy loss distributions."""
    return {
        "library": f"dp-accounting {importlib.metadata.version('dp-accounting')}",
        "method": "privacy loss distributions (PLD), pessimistic; the adaptive gate by Renyi DP; figures rounded up",
        "discretisation": accounting.CERTIFIED_DISCRETIZATION,
        "discretisation_of_rates": accounting.CERTIFIED_DISCRETIZATION,
        "discretisation_of_groups": accounting.GROUP_DISCRETIZATION,
    }
