"""Verifies that a statement says what follows from the facts that it declares, and nothing else.

Nothing in the document is trusted. Its declared facts are read by a strict schema (`declared.py`) and compared with
each other. The whole statement is then built anew from them, by the function that makes statements, and the two are
compared value by value. So any figure, name or sentence that was edited, added or removed is found without a list of
places to check, and what people are shown can be taken from the statement that was built.

This proves arithmetic and integrity. It does not prove that the events are the ones that ran, nor who made the
statement: an editor can compute the digest anew, but cannot make the events give another epsilon. Comparisons have no
tolerance: figures are rounded up to few decimals, which absorbs floating-point differences between machines.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any

from dp_assets.privacy.claim import Discrepancy, check_dpsgd, check_votes
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.losses import Unaccountable
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan, largest_delta
from dp_assets.privacy.registration import GATE_ORDERS
from dp_assets.statements.declared import Declared, declared
from dp_assets.statements.figures import cost_of, mechanisms_of
from dp_assets.statements.reading import MOST_LETTERS, StatementError, canonical, strict_json
from dp_assets.statements.statement import FORMAT, completed, with_figures

PROVES = (
    "This proves arithmetic and integrity: the figures follow from the events that the statement carries, and nothing"
    " in it was edited since its digest was taken. It does not prove that these events are the ones which ran, nor who"
    " made the statement: a forger can compute a digest anew, but cannot make events give another epsilon."
)
ENVELOPE = {"charge_ids", "data"}
FOLLOWING = ("guarantee", "digest")
"""The parts of a statement that follow from all the other parts."""
DIFFERENCES_NAMED = 10
MOST_COST = 48.0
"""The limit of `cost_of`, which a usual machine computes within seconds."""
MOST_LEVELS = 12
"""The most planned levels of a cohort, so that a statement stays below `MOST_COST`."""

MOST_MECHANISMS = 5_000
MOST_COHORTS = 500
MOST_BYTES_OF_A_STATEMENT = 2 * 2**20
DESCRIBED: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    GENERATOR: {
        "trained_tensors": lambda item: isinstance(item, Mapping) and item["count"] >= 1,
        "num_parameters": lambda item: type(item) is int and item >= 1,
    }
}
"""Items of evidence that describe a run and that no plan fixes, with the condition that each must meet."""
Problems = Iterator[str]


class Outcome(StrEnum):
    """The result of a check."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_CHECKED = "not checked"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One check of a statement with its result."""

    check: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """The findings, and the statement built from the declared facts, which is the one to show to people.

    `rebuilt` is None if the facts contradict each other or the figures would take too long.
    """

    findings: tuple[Finding, ...]
    rebuilt: Mapping[str, Any] | None

    @property
    def wrong(self) -> list[str]:
        """All differences, in words."""
        return [f"{finding.check}: {finding.detail}" for finding in self.findings if finding.outcome is Outcome.DIFFERS]


def verify(statement: Any) -> Mapping[str, Any]:
    """Verify a statement against its own facts, and return the one that was built anew.

    Raises:
      StatementError: something differs. Every difference is named.
    """
    verification = verification_of(statement)
    if verification.wrong or verification.rebuilt is None:
        raise StatementError("; ".join(verification.wrong))
    return verification.rebuilt


def verification_of_file(content: bytes) -> Verification:
    """Verify the statement in a `document.json`, read strictly.

    Raises:
      StatementError: it is not such a file, or see `verification_of`.
    """
    try:
        return _verification_of_document(strict_json(content, most_bytes=MOST_BYTES_OF_A_STATEMENT))
    except RecursionError:
        raise StatementError("it is nested too deeply") from None


def _verification_of_document(document: Any) -> Verification:
    if not isinstance(document, dict) or set(document) != ENVELOPE:
        raise StatementError(
            "this is not the document.json of a privacy statement, which holds charge_ids and data only"
        )
    verification = verification_of(document["data"])
    ids = [charge["charge_id"] for charge in document["data"]["charges"]]
    stated = canonical(document["charge_ids"]) == canonical(ids)
    beside = _finding("charge_ids", () if stated else ("those beside the statement are not its own",))
    return replace(verification, findings=(*verification.findings, beside))


def verification_of(statement: Any) -> Verification:
    """Run every check of a statement. Slow checks run only if nothing differs before them.

    Raises:
      StatementError: it is not a statement of this format, or a declared fact is missing or has another type.
    """
    check_format(statement)
    try:
        return _verification_of_facts(statement, declared(statement))
    except ArithmeticError:
        raise StatementError("a number is too large or too small to compute with") from None


def _verification_of_facts(statement: Mapping[str, Any], facts: Declared) -> Verification:
    built = completed(facts)
    cost = _finding("cost", _cost(facts))
    if _differ([cost]):
        return Verification((cost, Finding("figures", Outcome.NOT_CHECKED, "they would take too long")), None)
    findings = [cost, *(_finding(name, check(facts)) for name, check in FACTS.items())]
    findings.append(_finding("document", _named_differences(statement, built, besides=FOLLOWING)))
    if not _differ(findings):
        findings.append(_finding("levels", _levels(facts)))
    if _differ(findings):
        findings.append(Finding("figures", Outcome.NOT_CHECKED, "the facts that they rest on differ"))
        return Verification(tuple(findings), None)
    rebuilt = with_figures(built)
    stated, figures = ({"guarantee": form.get("guarantee")} for form in (statement, rebuilt))
    findings.append(_finding("figures", _named_differences(stated, figures)))
    findings.append(_finding("digest", _digest(statement.get("digest"), rebuilt["digest"])))
    return Verification(tuple(findings), rebuilt)


def _differ(findings: Sequence[Finding]) -> bool:
    return any(finding.outcome is Outcome.DIFFERS for finding in findings)


def check_format(statement: Any) -> None:
    """Require a statement of the format that this version reads.

    Raises:
      StatementError: it is not one.
    """
    if not isinstance(statement, Mapping) or "format" not in statement:
        raise StatementError("this is not a privacy statement: it names no format")
    stated = statement["format"]
    if canonical(stated) != canonical(FORMAT):
        raise StatementError(
            f"this is a privacy statement of format {stated!r}, and this version verifies format {FORMAT}: verify it"
            " with the version of `dp-instructions` that it names under code, or have it made again"
        )


def differences(stated: Any, built: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of values that differ between two JSON values, in type too, or that one of them lacks."""
    if isinstance(stated, Mapping) and isinstance(built, Mapping):
        for key in sorted({*stated, *built}):
            path = f"{name}.{key}" if name else key
            if key not in stated or key not in built:
                yield f"{path} is {'missing' if key in built else 'not part of a statement'}"
            else:
                yield from differences(stated[key], built[key], path)
    elif canonical(stated) != canonical(built):
        yield f"{name} does not follow from the declared facts"


def _named_differences(
    stated: Mapping[str, Any], built: Mapping[str, Any], *, besides: Collection[str] = ()
) -> Problems:
    here, there = ({name: form[name] for name in form if name not in besides} for form in (stated, built))
    names = list(differences(here, there))
    yield from names[:DIFFERENCES_NAMED]
    if len(names) > DIFFERENCES_NAMED:
        yield f"and {len(names) - DIFFERENCES_NAMED} more"


def _digest(stated: Any, built: str) -> Problems:
    if stated != built:
        yield "it is not the digest of this statement, so something in it was edited"


def _finding(name: str, problems: Iterable[str]) -> Finding:
    detail = "; ".join(islice(problems, 2 * DIFFERENCES_NAMED))[:MOST_LETTERS]
    return Finding(name, Outcome.DIFFERS if detail else Outcome.AGREES, detail)


def _terms(facts: Declared) -> Problems:
    if facts.terms.gate_order not in GATE_ORDERS:
        yield f"terms.gate_order is none of {', '.join(map(str, GATE_ORDERS))}"
    units = facts.settings().corpus.declared_units
    for level in facts.plans:
        most = largest_delta(max(units or 0, facts.plan(level).dpsgd.implied_units))
        if facts.terms.delta > most:
            yield f"terms.delta must be at most {most:.3g}, a tenth of one over the number of units"


def _release(facts: Declared) -> Problems:
    ids = [charge.charge_id for charge in facts.charges]
    if len(set(ids)) < len(ids):
        yield "a charge is listed twice"
    for name, listed, used in (
        ("cohorts", facts.cohorts, {charge.cohort for charge in facts.charges}),
        ("plans", facts.plans, {charge.level for charge in facts.charges}),
        ("evidence", facts.evidence, set(ids)),
    ):
        if set(listed) != used:
            yield f"{name} are not those of the charges"
    for cohort in facts.cohorts:
        mechanisms = {charge.mechanism for charge in facts.charges if charge.cohort == cohort}
        for mechanism in (required for required in (GENERATOR, HISTOGRAM) if required not in mechanisms):
            yield f"no charge of {mechanism} in cohort {cohort}, from which every release descends"
    if NO_DP in facts.plans and not facts.source.declared_public:
        yield "level no-dp on a source that was not declared public"


def _cost(facts: Declared) -> Problems:
    """Bound the cost of verification, so that the author of a statement cannot make it run for hours."""
    if len(facts.cohorts) > MOST_COHORTS:
        yield f"more than {MOST_COHORTS} cohorts, which would take too long to account for"
        return
    listed = (event for cohort in facts.cohorts.values() for event in (*cohort.booked, *cohort.later))
    if sum(1 for event in listed for _ in mechanisms_of(event)) > MOST_MECHANISMS:
        yield f"more than {MOST_MECHANISMS} mechanisms, which would take too long to account for"
    elif cost_of(facts) > MOST_COST:
        yield (
            f"the figures would take too long: they need more than {MOST_COST:.0f} accounts of a mechanism, one for"
            " each different event and each choice of cohorts; no release of this program comes near that"
        )


def _levels(facts: Declared) -> Problems:
    """Check that each plan keeps the epsilon that its level's name claims."""
    for level in facts.plans:
        plan = facts.plan(level)
        if plan.is_private and not _epsilon(plan) <= plan.target_epsilon:
            yield f"the plan of {level} does not keep the epsilon that the level names"


def _epsilon(plan: PrivacyPlan) -> float:
    try:
        return plan.epsilon
    except Unaccountable:
        return math.inf


def _configuration(facts: Declared) -> Problems:
    """Check that the profile is the one from which the plans were made."""
    settings = facts.settings()
    terms = settings.corpus.model_dump(include={"unit", "without_user", "max_rows_per_unit", "delta"})
    if terms != facts.terms.model_dump(include=set(terms)):
        yield "corpus has another unit, rule for rows without a user, bound or delta than the terms"
    if (settings.corpus.source.kind, settings.corpus.redact) != (facts.source.kind, facts.source.redacted):
        yield "corpus has another kind of source or redaction than the statement"
    for level, plan in facts.plans.items():
        if settings.generator.model_dump() != plan.dpsgd.model_dump(exclude={"noise_multiplier"}):
            yield f"generator does not give the plan of {level}"
        if settings.votes.num_bins != plan.votes.num_bins:
            yield f"votes.num_bins is not that of the plan of {level}"
        if plan.votes.noise_stddev != (0 if level == NO_DP else settings.votes.noise_stddev):
            yield f"votes.noise_stddev is not that of the plan of {level}"
        if level == NO_DP and plan.dpsgd.noise_multiplier:
            yield f"the plan of {level} has noise"


def _cohorts(facts: Declared) -> Problems:
    """Check that each cohort's events include those of the release, each as often as it was charged."""
    for name, cohort in facts.cohorts.items():
        for booked, events in ((True, cohort.booked), (False, cohort.later)):
            charged = Counter(
                canonical(event_to_json(facts.plan(charge.level).events[charge.mechanism]))
                for charge in facts.charges
                if charge.cohort == name and charge.booked_beforehand is booked and charge.level != NO_DP
            )
            if charged - Counter(map(canonical, events)):
                yield f"cohort {name} lacks an event of the release"


def _evidence(facts: Declared) -> Problems:
    """Check that the evidence of each charge agrees with its plan, and that it holds nothing else."""
    for charge in facts.charges:
        evidence, plan = facts.observed(charge.charge_id), facts.plan(charge.level)
        label, known = f"charge {charge.charge_id}", DESCRIBED.get(charge.mechanism, {})
        checked = {discrepancy.check for discrepancy in _discrepancies(charge.mechanism, plan, {})}
        for discrepancy in _discrepancies(charge.mechanism, plan, evidence):
            if discrepancy.check in evidence:
                yield f"{label}, {discrepancy.check}: what ran is not what was planned"
            else:
                yield f"{label}, {discrepancy.check}: the evidence does not say it, such as that of an earlier version"
        for name in (name for name, fits in known.items() if not fits(evidence.get(name))):
            yield f"{label}, {name}: it says nothing that was trained"
        for name in sorted(evidence.keys() - checked - known.keys()):
            yield f"{label}, {name}: no check compares it with the plan"
        if type(evidence.get("continuations")) is int:
            yield f"{label}, continuations: their number may follow from a private row, and is never published"


def _discrepancies(mechanism: str, plan: PrivacyPlan, evidence: Mapping[str, Any]) -> Sequence[Discrepancy]:
    if mechanism == GENERATOR:
        return check_dpsgd(plan.dpsgd, plan.unit, evidence, delta=plan.delta)
    return check_votes(plan.votes, plan.unit, evidence)


def _budget(facts: Declared) -> Problems:
    """Check that each raise starts where the one before ended, and that the last one ends at the budget."""
    raised = facts.budget.raised
    starts, ends = [step.before for step in raised], [step.after for step in raised]
    if any(end <= start for start, end in zip(starts, ends, strict=True)) or starts[1:] != ends[:-1]:
        yield "the raises of the budget do not follow from each other"
    if ends and ends[-1] != facts.budget.epsilon:
        yield "epsilon is not what the last raise made it"


FACTS: Mapping[str, Callable[[Declared], Problems]] = {
    "terms": _terms,
    "release": _release,
    "configuration": _configuration,
    "cohorts": _cohorts,
    "evidence": _evidence,
    "budget": _budget,
}
