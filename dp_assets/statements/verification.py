"""Whether a statement holds together, from nothing but itself.

Every figure is recomputed from the events that the statement carries; plans, charges, evidence, terms and budget are
compared with each other; and a digest covers the rest. What this proves is arithmetic and integrity. It does not prove
that the events are the ones which ran, nor who made the statement: whoever edits it can compute the digest anew, but
not an epsilon that its events do not give.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dp_assets.privacy.accounting import EPSILON_DECIMALS
from dp_assets.privacy.claim import Discrepancy, check_dpsgd, check_votes
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.plan import GENERATOR, DpSgdPlan, PrivacyPlan, VotesPlan, target_of
from dp_assets.privacy.units import RELATION, PrivacyUnit, WithoutUser, unit_in_words
from dp_assets.statements.figures import figures_of
from dp_assets.statements.statement import FORMAT, PARTS, StatementError, accountant_form, canonical, digest_of, sealed

PROVES = (
    "This proves arithmetic and integrity: the figures follow from the events that the statement carries, and nothing"
    " in it was edited since its digest was taken. It does not prove that these events are the ones which ran, nor who"
    " made the statement: a forger can compute a digest anew, but cannot make events give another epsilon."
)
# Another machine's Fourier transform may move a figure across one rounding step; the digest finds smaller edits.
ROUNDING = 1.5 * 10**-EPSILON_DECIMALS
Problems = Iterator[str]


class Outcome(StrEnum):
    """What a check found."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_CHECKED = "not checked"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One check of a statement, and what it found."""

    check: str
    outcome: Outcome
    detail: str = ""


def verify(statement: Mapping[str, Any]) -> None:
    """Check a statement against itself.

    Raises:
      StatementError: something differs; every difference is named.
    """
    wrong = [f"{found.check}: {found.detail}" for found in findings(statement) if found.outcome is Outcome.DIFFERS]
    if wrong:
        raise StatementError("; ".join(wrong))


def findings(statement: Mapping[str, Any]) -> list[Finding]:
    """What each check of a statement found. Figures are recomputed only from facts that agree with each other.

    Raises:
      StatementError: it is no statement of this format, or lacks a part.
    """
    if not isinstance(statement, Mapping) or statement.get("format") != FORMAT:
        raise StatementError(f"this is no privacy statement of format {FORMAT}, the one that this version verifies")
    try:
        found = [_finding(name, check(statement)) for name, check in FACTS.items()]
        agree = all(one.outcome is Outcome.AGREES for one in found)
        skipped = Finding("figures", Outcome.NOT_CHECKED, "the facts that they rest on differ")
        found.append(_finding("figures", _figures(statement)) if agree else skipped)
        return [*found, _finding("digest", _digest(statement))]
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        raise StatementError("this is no privacy statement, or a part of it is missing or of another kind") from None


def _finding(name: str, problems: Problems) -> Finding:
    detail = "; ".join(problems)
    return Finding(name, Outcome.DIFFERS if detail else Outcome.AGREES, detail)


def _digest(statement: Mapping[str, Any]) -> Problems:
    if statement["digest"] != sealed(statement)["digest"]:
        yield "it is not the digest of this statement, so something in it was edited"


def _parts(statement: Mapping[str, Any]) -> Problems:
    for name in sorted(PARTS ^ set(statement)):
        yield f"{name} is {'missing' if name in PARTS else 'no part of a statement'}"


def _terms(statement: Mapping[str, Any]) -> Problems:
    terms, accountant = statement["terms"], statement["accountant"]
    if terms["relation"] != RELATION.name:
        yield f"relation must be {RELATION.name}, for which every figure is computed"
    without_user = WithoutUser(terms.get("without_user", WithoutUser.OWN_UNIT))  # statements before it name none
    if terms["unit_in_words"] != unit_in_words(PrivacyUnit(terms["unit"]), without_user):
        yield "unit_in_words names another unit"
    if type(terms["gate_order"]) is not int or terms["gate_order"] < 2:
        yield "gate_order must be an integer of at least 2"
    for name, value in accountant_form().items():
        if name.startswith("discretisation") and accountant[name] != value:
            yield f"{name} is not the one that this version recomputes with"
    for level, plan in statement["plans"].items():
        if [plan[name] for name in ("unit", "max_rows_per_unit", "delta")] != [
            terms[name] for name in ("unit", "max_rows_per_unit", "delta")
        ]:
            yield f"the plan of {level} was made for another unit, bound or delta"


def _release(statement: Mapping[str, Any]) -> Problems:
    release, charges, ledger = statement["release"], statement["charges"], statement["ledger"]
    cohorts, levels = ({charge[name] for charge in charges} for name in ("cohort", "level"))
    if not release["cohorts"] == sorted(cohorts) == sorted(statement["cohorts"]):
        yield "the cohorts are not those of the charges"
    if not release["levels"] == sorted(levels) == sorted(statement["plans"]):
        yield "the levels are not those of the charges"
    ids = [charge["charge_id"] for charge in charges]
    if ledger["charge_ids"] != ids or len(set(ids)) != len(ids) or not ids:
        yield "ledger.charge_ids are not the ids of the charges"
    if any(charge["corpus_id"] != ledger["corpus_id"] for charge in charges):
        yield "a charge belongs to another corpus"
    if NO_DP in levels and not statement["source"]["declared_public"]:
        yield "level no-dp on a source that was not declared public"


def _plans(statement: Mapping[str, Any]) -> Problems:
    """Each charge must be one of the stated plan, event by event."""
    for charge in statement["charges"]:
        plan = plan_from_json(statement["plans"][charge["level"]])
        place = f"charge {charge['charge_id']}"
        if plan.level != charge["level"] or plan.target_epsilon != target_of(plan.level):
            yield f"the plan of {charge['level']} names another level or target"
        if plan.digest != charge["plan_digest"]:
            yield f"{place} was made for another plan"
        event = plan.events.get(charge["mechanism"])
        if event is None or canonical(charge["event"]) != canonical(event_to_json(event)):
            yield f"the event of {place} is not its plan's"


def plan_from_json(form: Mapping[str, Any]) -> PrivacyPlan:
    """The plan that `PrivacyPlan.to_json` wrote."""
    target = math.inf if form["target_epsilon"] is None else form["target_epsilon"]
    return PrivacyPlan(
        **{
            **form,
            "target_epsilon": target,
            "unit": PrivacyUnit(form["unit"]),
            "dpsgd": DpSgdPlan(**form["dpsgd"]),
            "votes": VotesPlan(**form["votes"]),
        }
    )


def _cohorts(statement: Mapping[str, Any]) -> Problems:
    """Whatever the release descends from must be among what its cohort answers for, as often as it was charged."""
    for name, cohort in statement["cohorts"].items():
        if type(cohort["closed"]) is not bool:
            yield f"cohort {name}: closed is neither true nor false"
        for kind, booked in (("booked", True), ("later", False)):
            stated = Counter(canonical(event) for event in cohort[kind])
            made = Counter(
                canonical(charge["event"])
                for charge in statement["charges"]
                if charge["cohort"] == name and charge["booked_beforehand"] is booked and charge["level"] != NO_DP
            )
            if made - stated:
                yield f"cohort {name} lacks an event of the release"
    if any(type(charge["booked_beforehand"]) is not bool for charge in statement["charges"]):
        yield "booked_beforehand is neither true nor false"


def _evidence(statement: Mapping[str, Any]) -> Problems:
    """What ran under each charge must be what its plan says."""
    charges = {charge["charge_id"]: charge for charge in statement["charges"]}
    if set(statement["evidence"]) - set(charges):
        yield "there is evidence of a charge that is not among the release's"
    for charge_id, charge in charges.items():
        evidence = statement["evidence"].get(charge_id)
        if evidence is None:
            yield f"charge {charge_id} comes without evidence"
            continue
        plan = plan_from_json(statement["plans"][charge["level"]])
        for one in _discrepancies(charge["mechanism"], plan, evidence):
            yield f"charge {charge_id}, {one.check}: what ran is not what was planned"


def _discrepancies(mechanism: str, plan: PrivacyPlan, evidence: Mapping[str, Any]) -> Sequence[Discrepancy]:
    if mechanism == GENERATOR:
        return check_dpsgd(plan.dpsgd, plan.unit, evidence)
    return check_votes(plan.votes, plan.unit, evidence)


def _budget(statement: Mapping[str, Any]) -> Problems:
    """Each raise must start where the one before ended, and the last one at the budget."""
    budget = statement["budget"]
    raised = budget["raised"]
    starts, ends = [one["from"] for one in raised], [one["to"] for one in raised]
    if any(end <= start for start, end in zip(starts, ends, strict=True)) or starts[1:] != ends[:-1]:
        yield "the raises of the budget do not follow from each other"
    if not budget["epsilon"] > 0 or (ends and ends[-1] != budget["epsilon"]):
        yield "epsilon is not what the last raise made it"


def _configuration(statement: Mapping[str, Any]) -> Problems:
    configuration = statement["configuration"]
    if configuration["sha256"] != digest_of(configuration["profile"]):
        yield "sha256 is not that of the profile"


def _figures(statement: Mapping[str, Any]) -> Problems:
    stated, recomputed = (_leaves(form) for form in (statement["guarantee"], figures_of(statement)))
    for name in sorted({*stated, *recomputed}):
        if name not in stated or name not in recomputed or not _same(stated[name], recomputed[name]):
            yield f"guarantee.{name} does not follow from the events"


def _leaves(form: Any, name: str = "") -> dict[str, Any]:
    """The values of nested mappings by their dotted names."""
    if not isinstance(form, Mapping):
        return {name: form}
    leaves: dict[str, Any] = {}
    for key, value in form.items():
        leaves |= _leaves(value, f"{name}.{key}" if name else key)
    return leaves


def _same(stated: Any, recomputed: Any) -> bool:
    if isinstance(stated, float | int) and isinstance(recomputed, float | int):
        return math.isclose(stated, recomputed, rel_tol=1e-5, abs_tol=ROUNDING)
    return bool(stated == recomputed)


FACTS: Mapping[str, Callable[[Mapping[str, Any]], Problems]] = {
    "parts": _parts,
    "terms": _terms,
    "release": _release,
    "plans": _plans,
    "cohorts": _cohorts,
    "evidence": _evidence,
    "budget": _budget,
    "configuration": _configuration,
}
