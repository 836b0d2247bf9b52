"""The privacy statement of a release: what is guaranteed, to whom, by what, and what is not.

The content follows the reporting advice of Ponomareva et al. (arXiv 2303.00654, section 5.3.3) and NIST SP 800-226:
setting, unit, relation, mechanisms with all parameters, accountant, and what lies outside. It carries the events
themselves, so `verify` recomputes every figure offline. That proves arithmetic and integrity; that the events are the
ones which ran rests on the code and on the evidence that the mechanisms returned.
"""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.ledger import LedgerState
from dp_assets.privacy.plan import DpSgdPlan, PrivacyPlan, VotesPlan
from dp_assets.privacy.registration import Registration

FALSE_POSITIVE_RATES = (0.001, 0.01)
DELTA_GRID = tuple(10.0**-exponent for exponent in range(1, 11))

NOT_COVERED = (
    "choices that a person made by looking at private rows or at the restricted report, such as tuning",
    "run time, memory and whether a run failed, which operators can see",
    "what the public base model and embedder learned from their own training data",
    "what other people wrote about a person: the unit is the author's rows, not mentions of somebody",
    "other corpora with some of the same rows: overlaps are the owner's to declare",
    "with the unit instruction, a row that is edited or re-dated: it is another row then",
    "a budget that was raised after results were seen: the raised budget is the guarantee",
    "a person who writes under several user ids, or whose rows name no user: each id or row is a unit of its own",
    "floating-point effects of the Gaussian noise on gradients, drawn in float64 and not discretised; votes are exact",
)


class StatementError(ValueError):
    """A statement whose figures do not follow from its own events."""


def make_statement(
    state: LedgerState,
    registration: Registration,
    plan: PrivacyPlan,
    *,
    cohort: str,
    charge_ids: Sequence[str],
    base_model: str,
    evidence: Mapping[str, Any],
    source_kind: str,
) -> dict[str, Any]:
    """The statement of the release behind `charge_ids` as a JSON value.

    Raises:
      StatementError: a charge was made for another plan than the one to be stated.
    """
    if any(state.charges[charge_id].plan_digest != plan.digest for charge_id in charge_ids):
        raise StatementError("the release was made with another plan than the profile's; materialize it again")
    is_planned, unprotected = state.is_planned(registration.corpus_id, cohort), plan.level == NO_DP
    lineage = [dict(state.charges[charge_id].event) for charge_id in charge_ids]
    cohort_events = [event_to_json(event) for event in state.cohort_events(registration.corpus_id, cohort)]
    return {
        "level": plan.level,
        "cohort": cohort,
        "setting": "central: a trusted curator runs the pipeline; adapters and synthetic tables are released",
        "unit": registration.unit.in_words,
        "max_rows_per_unit": registration.max_rows_per_unit,
        "relation": registration.relation,
        "delta": registration.delta,
        "guarantee": {
            "budget_epsilon": registration.budget_epsilon,
            "cohort_epsilon": None
            if unprotected
            else _json_number(state.cohort_epsilon(registration.corpus_id, cohort)),
            "lineage_epsilon": _json_number(state.lineage_epsilon(charge_ids)),
            "fixed_beforehand": is_planned,
            "gate_order": registration.gate_order,
        },
        "events": {"cohort": cohort_events, "lineage": lineage},
        "trade_off": trade_off(lineage),
        "plan": plan.to_json(),
        "evidence": dict(evidence),
        "accountant": accountant_in_words(registration, is_planned),
        "sampler": "Poisson sampling of units, independent and without a cap",
        "randomness": "operating-system entropy for sampling and noise; public seeds for public steps only",
        "base_model": base_model,
        "source": {"kind": source_kind, "declared_public": registration.is_public},
        "ledger": {
            "corpus_id": registration.corpus_id,
            "charge_ids": list(charge_ids),
            "length": state.anchor.length,
            "head": state.anchor.head,
        },
        "not_covered": list(NOT_COVERED),
    }


def trade_off(lineage: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """An attacker's largest true-positive rate at each reported false-positive rate, rounded up."""
    event = accounting.compose([event_from_json(form) for form in lineage])
    form = json.dumps(event_to_json(event))
    return {
        f"{rate:g}": min(1.0, accounting.round_up(accounting.true_positive_rate(form, DELTA_GRID, rate), 4))
        for rate in FALSE_POSITIVE_RATES
    }


def accountant_in_words(registration: Registration, is_planned: bool) -> str:
    version = importlib.metadata.version("dp-accounting")
    words = f"dp-accounting {version}, PLD at discretisation {accounting.CERTIFIED_DISCRETIZATION:g}, rounded up"
    return words if is_planned else f"{words}; for the whole cohort RDP at order {registration.gate_order}"


def verify(statement: Mapping[str, Any]) -> None:
    """Recompute epsilon and trade-off from the statement's own events.

    Raises:
      StatementError: a figure differs from what its events give.
    """
    guarantee, delta = statement["guarantee"], statement["delta"]
    _verify_events(statement)
    cohort = accounting.compose([event_from_json(form) for form in statement["events"]["cohort"]])
    lineage = accounting.compose([event_from_json(form) for form in statement["events"]["lineage"]])
    recomputed = {
        "lineage_epsilon": _json_number(accounting.epsilon(lineage, delta)),
        "cohort_epsilon": _json_number(_cohort_epsilon(statement, cohort)),
    }
    wrong = [name for name, value in recomputed.items() if guarantee[name] != value]
    if statement["trade_off"] != trade_off(statement["events"]["lineage"]):
        wrong.append("trade_off")
    if wrong:
        raise StatementError(f"{', '.join(wrong)} do not follow from the events of the statement")


def _json_number(value: float) -> float | None:
    """JSON has no infinity; null says that nothing bounds the epsilon."""
    return None if math.isinf(value) else value


def _cohort_epsilon(statement: Mapping[str, Any], cohort: DpEvent) -> float:
    """The cohort's figure as the ledger computes it."""
    guarantee, delta = statement["guarantee"], statement["delta"]
    if statement["plan"]["level"] == NO_DP:
        return math.inf
    if guarantee["fixed_beforehand"]:
        return accounting.epsilon(cohort, delta)
    return accounting.rdp_epsilon(cohort, delta, guarantee["gate_order"])


def _verify_events(statement: Mapping[str, Any]) -> None:
    """The lineage must hold events of the stated plan only, and the cohort must hold all of them."""
    plan, events = statement["plan"], statement["events"]
    planned = [event_to_json(event) for event in _events_of_plan(plan)]
    if any(event not in planned for event in events["lineage"]):
        raise StatementError("events.lineage differs from the events of the stated plan")
    if plan["level"] != NO_DP and any(event not in events["cohort"] for event in events["lineage"]):
        raise StatementError("events.cohort lacks an event of events.lineage")


def _events_of_plan(plan: Mapping[str, Any]) -> list[DpEvent]:
    return [DpSgdPlan(**plan["dpsgd"]).event, VotesPlan(**plan["votes"]).event]


def to_markdown(statement: Mapping[str, Any]) -> str:
    """The statement for people, in plain words first."""
    plan, rates = statement["plan"], statement["trade_off"]
    dpsgd, votes = plan["dpsgd"], plan["votes"]
    public = " The source was declared public." if statement["source"]["declared_public"] else ""
    lines = [
        f"# Privacy statement: cohort {statement['cohort']}, level {statement['level']}",
        "",
        *(_no_guarantee() if plan["level"] == NO_DP else _guarantee_in_words(statement)),
        "",
        f"Somebody who sees this release and wants to tell whether a unit took part, and accepts being wrong about 1 in"
        f" 100 absent units, finds at most {rates['0.01']:.1%} of those present; at 1 in 1,000, at most"
        f" {rates['0.001']:.1%}." + public,
        "",
        "| what | value |",
        "| --- | --- |",
        f"| setting | {statement['setting']} |",
        f"| privacy unit | {statement['unit']}, at most {statement['max_rows_per_unit']} rows |",
        f"| neighbouring relation | {statement['relation']} |",
        f"| first mechanism | DP-SGD with LoRA: sampling probability {dpsgd['sampling_probability']:g},"
        f" {dpsgd['steps']} steps and {dpsgd['spare_steps']} spare ones, clip norm {dpsgd['l2_clip_norm']:g}, noise"
        f" multiplier {dpsgd['noise_multiplier']:g} |",
        f"| second mechanism | one vote a unit for {votes['num_bins']} bins, discrete Gaussian noise of standard"
        f" deviation {votes['noise_stddev']:g} on each |",
        f"| resumes used | {statement['evidence'].get('continuations', 0)} |",
        f"| accountant | {statement['accountant']} |",
        f"| sampler | {statement['sampler']} |",
        f"| randomness | {statement['randomness']} |",
        f"| base model | {statement['base_model']} |",
        f"| ledger | corpus {statement['ledger']['corpus_id']}, entry {statement['ledger']['length']},"
        f" head {statement['ledger']['head'][:16]} |",
        f"| charges | {', '.join(statement['ledger']['charge_ids'])} |",
        "",
        "Not covered:",
        "",
        *(f"- {item};" for item in statement["not_covered"]),
        "",
    ]
    return "\n".join(lines)


def _no_guarantee() -> list[str]:
    return ["**No guarantee.** It runs without noise, on a public source, and nothing of it leaves the private zone."]


def _shown(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None else f"{epsilon:g}"


def _guarantee_in_words(statement: Mapping[str, Any]) -> list[str]:
    """The headline. Where runs were chosen after results, only the budget that bounded the choice is a guarantee."""
    guarantee, delta = statement["guarantee"], f"{statement['delta']:g}"
    spent, alone = (_shown(guarantee[name]) for name in ("cohort_epsilon", "lineage_epsilon"))
    budget = f"{guarantee['budget_epsilon']:g}"
    if guarantee["fixed_beforehand"]:
        headline = (
            f"**epsilon {spent} at delta {delta}** over everything booked for this cohort before any output existed"
        )
    else:
        headline = (
            f"**epsilon {budget} at delta {delta}**, the budget of this cohort, since some runs were chosen after"
            f" results (spent so far, as accounting: {spent})"
        )
    return [
        f"Whether or not one {statement['unit']} (up to {statement['max_rows_per_unit']} rows) is in the corpus, the"
        f" released artifacts come out almost equally likely: {headline}. This release alone, if it was fixed"
        f" beforehand: epsilon {alone}. Whatever may still run for the cohort stays within"
        f" epsilon {budget}.",
    ]
