"""The figures of a release, computed from its events and terms alone.

Making and verifying a statement call the same function on the same facts, so a figure can differ only if a fact was
edited. There are two scopes:

- `cohort` is everything booked or charged for the cohort. It is the headline.
- `lineage` is what this release descends from. It holds if its plan and release were fixed beforehand.

Where a run was chosen after results, only the budget that the gate enforced is a guarantee. The gate is a Renyi DP
filter: it bounds RDP at one order a. RDP R gives every delta its epsilon R + log(1 - 1/a) - log(delta a) / (a - 1)
(arXiv 2004.00010, Proposition 12), so a budget at one delta implies a budget at every other.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.headline import Basis, Guarantee, guarantee
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.lineage import COHORTS_OF_A_REPLACEMENT, COHORTS_OF_A_UNIT, Spend, worst_case
from dp_assets.privacy.metadata import headline_form
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.statements.declared import Declared, EventForm
from dp_assets.statements.reading import canonical

SMALL_DELTA = 1e-9
AT_SMALL_DELTA = f"epsilon_at_delta_{SMALL_DELTA:g}"
FALSE_POSITIVE_RATES = (0.001, 0.01)
RATE_DECIMALS = 4
LARGEST_EXPONENT = 700.0  # its exponential is far beyond every rate and still a float
DELTA_GRID = tuple(10.0**-exponent for exponent in range(1, 11))


def figures_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures that follow from a statement's `release`, `charges`, `cohorts`, `terms` and `budget`.

    Epsilons and rates are rounded up. An unbounded epsilon is null, because JSON has no infinity.
    """
    delta, lineage = facts["terms"]["delta"], lineage_of(facts)
    guaranteed = guarantee_of(facts)
    headline = _Headline(facts, guaranteed)
    return {
        "headline_basis": str(guaranteed.basis),
        "headline_epsilon": headline.epsilon_at(delta),
        "cohort_epsilon": _json_number(guaranteed.spent),
        "lineage_epsilon": _worst(lineage, lambda event: accounting.epsilon(event, delta)),
        AT_SMALL_DELTA: {
            "cohort": headline.epsilon_at(SMALL_DELTA),
            "lineage": _worst(lineage, lambda event: accounting.epsilon(event, SMALL_DELTA)),
        },
        "replace_one_epsilon": {"cohort": headline.replace_one_epsilon(delta), "lineage": _replaced(lineage, delta)},
        "true_positive_rate": {"cohort": headline.true_positive_rates(), "lineage": _rates(lineage)},
        "epsilon_of_a_person": _epsilon_of_a_person(facts, lineage, delta),
    }


def joint_figures(statement: Mapping[str, Any], charge_ids: Iterable[str]) -> dict[str, Any]:
    """Return the joint cost of artifacts that descend from these charges, and their cohorts' guarantees, as JSON."""
    ids, delta = sorted(set(charge_ids)), statement["terms"]["delta"]
    charges = [charge for charge in statement["charges"] if charge["charge_id"] in ids]
    cohorts = sorted({charge["cohort"] for charge in charges})
    corpus = {"corpus_id": statement["ledger"]["corpus_id"], "delta": delta}
    return {
        "charge_ids": ids,
        "lineage_epsilon": _worst(lineage_of({"charges": charges}), lambda event: accounting.epsilon(event, delta)),
        "cohorts": [
            corpus | {"cohort": name} | headline_form(guarantee_of({**statement, "cohorts": {name: own}}))
            for name, own in statement["cohorts"].items()
            if name in cohorts
        ],
    }


def cost_of(facts: Declared) -> float:
    """Estimate how many accounts of one mechanism the figures and the levels' names need; each takes up to a second.

    Each choice of cohorts that a change of units can affect needs an account of its own, for each neighboring relation.
    Runs chosen after results are accounted for by Renyi DP, at almost no cost.
    """
    levels = [event_to_json(event) for level in facts.plans for event in facts.plan(level).events.values()]
    booked = {name: cohort.booked for name, cohort in facts.cohorts.items() if not cohort.later}
    lineage: dict[str, list[EventForm]] = {}
    for charge in facts.charges:
        lineage.setdefault(charge.cohort, []).append(event_to_json(facts.plan(charge.level).events[charge.mechanism]))
    by_person = accounting.GROUP_SIZES if facts.terms.unit is PrivacyUnit.INSTRUCTION else ()
    of_units = (COHORTS_OF_A_UNIT, COHORTS_OF_A_REPLACEMENT)
    cost = sum((_weight(event) for event in levels), 0.0)
    cost += sum(_cost_of_choices(booked, size) for size in of_units)
    return cost + sum(_cost_of_choices(lineage, size) for size in (*of_units, *by_person))


def _cost_of_choices(events: Mapping[str, Sequence[EventForm]], size: int) -> float:
    """Return the cost of composing every choice of `size` cohorts, or of all if there are fewer."""
    others = max(len(events) - 1, 0)
    choices_with_one = math.comb(others, min(size - 1, others))
    different = [{canonical(event): event for event in own}.values() for own in events.values()]
    return choices_with_one * sum((_weight(event) for own in different for event in own), 0.0)


def _weight(event: EventForm) -> float:
    """Return the time to account for an event, relative to a Gaussian mechanism. Votes are tabulated and cheap."""
    return sum((_weight_of_mechanism(mechanism) for mechanism in mechanisms_of(event)), 0.0)


def _weight_of_mechanism(mechanism: Mapping[str, Any]) -> float:
    return 0.1 + mechanism["noise_stddev"] / 1e4 if mechanism["type"] == "discrete_gaussian" else 1.0


def mechanisms_of(event: Any) -> Iterator[EventForm]:
    """Yield the mechanisms in the form of an event, as often as they occur in it."""
    match event["type"]:
        case "composed":
            for part in event["events"]:
                yield from mechanisms_of(part)
        case "self_composed":
            yield from mechanisms_of(event["event"])
        case _:
            yield event


def trade_off_curves(facts: Mapping[str, Any], at: Sequence[float]) -> dict[str, list[float]]:
    """Return the trade-off curves of both scopes: an attacker's largest true-positive rate at each rate of `at`."""
    cohort = _Headline(facts, guarantee_of(facts)).true_positive_rates(at)
    return {"cohort": list(cohort.values()), "lineage": list(_rates(lineage_of(facts), at).values())}


def lineage_of(facts: Mapping[str, Any]) -> list[Spend]:
    """Return the charges behind the release as spends."""
    return [
        Spend(charge["corpus_id"], charge["cohort"], event_from_json(charge["event"])) for charge in facts["charges"]
    ]


def guarantee_of(facts: Mapping[str, Any]) -> Guarantee:
    """Return the guarantee of a statement's cohorts, and what they spent."""
    cohorts = facts["cohorts"].values()
    return guarantee(
        spent=max((cohort_epsilon(facts, cohort) for cohort in cohorts), default=0.0),
        budget=facts["budget"]["epsilon"],
        fixed_beforehand=not any(cohort["later"] for cohort in cohorts),
        closed=any(cohort["closed"] for cohort in cohorts),
        without_noise=NO_DP in facts["release"]["levels"],
    )


def cohort_epsilon(facts: Mapping[str, Any], cohort: Mapping[str, Any]) -> float:
    """Return what a cohort has spent, as the ledger computes it; infinity for a release without noise."""
    delta, order = facts["terms"]["delta"], facts["terms"]["gate_order"]
    if NO_DP in facts["release"]["levels"]:
        return math.inf
    event = accounting.compose(_events(cohort))
    return accounting.rdp_epsilon(event, delta, order) if cohort["later"] else accounting.epsilon(event, delta)


class _Headline:
    """The figures over everything charged or booked for the cohorts."""

    def __init__(self, facts: Mapping[str, Any], guaranteed: Guarantee) -> None:
        self._basis, self._terms, self._budget = guaranteed.basis, facts["terms"], guaranteed.budget
        self._spends = [
            Spend(facts["ledger"]["corpus_id"], name, event)
            for name, cohort in facts["cohorts"].items()
            for event in _events(cohort)
        ]

    def epsilon_at(self, delta: float) -> float | None:
        """Return the epsilon at `delta`, None if unbounded."""
        if self._basis is Basis.FIXED_BEFOREHAND:
            return _worst(self._spends, lambda event: accounting.epsilon(event, delta))
        return self._budget_at(delta) if self._basis is Basis.BUDGET else None

    def replace_one_epsilon(self, delta: float) -> float | None:
        """Return the epsilon of one unit replaced; None unless all plans were fixed beforehand.

        The gate bounds epsilon for its own neighboring relation only.
        """
        return _replaced(self._spends, delta) if self._basis is Basis.FIXED_BEFOREHAND else None

    def true_positive_rates(self, at: Sequence[float] = FALSE_POSITIVE_RATES) -> dict[str, float]:
        """Return an attacker's largest true-positive rate at each of these false-positive rates."""
        if self._basis is Basis.FIXED_BEFOREHAND:
            return _rates(self._spends, at)
        if self._basis is Basis.BUDGET:
            pairs = [(self._budget_at(delta), delta) for delta in DELTA_GRID]
            return {f"{rate:g}": _rounded(_rate_of_pairs(pairs, rate)) for rate in at}
        return {f"{rate:g}": 1.0 for rate in at}

    def _budget_at(self, delta: float) -> float:
        moved = math.log(self._terms["delta"] / delta) / (self._terms["gate_order"] - 1)
        return accounting.round_up(max(0.0, self._budget + moved), accounting.EPSILON_DECIMALS)


def _events(cohort: Mapping[str, Any]) -> list[DpEvent]:
    return [event_from_json(form) for form in (*cohort["booked"], *cohort["later"])]


def _worst(
    spends: Sequence[Spend], figure: Callable[[DpEvent], float], *, cohorts_met: int = COHORTS_OF_A_UNIT
) -> float | None:
    return _json_number(worst_case(spends, figure, cohorts_met=cohorts_met))


def _replaced(spends: Sequence[Spend], delta: float) -> float | None:
    figure = partial(accounting.replace_one_epsilon, delta=delta)
    return _worst(spends, figure, cohorts_met=COHORTS_OF_A_REPLACEMENT)


def _epsilon_of_a_person(
    facts: Mapping[str, Any], lineage: Sequence[Spend], delta: float
) -> dict[str, float | None] | None:
    """Return the epsilon of a person with k units, by k, where the unit is one instruction; None for users."""
    if facts["terms"]["unit"] != PrivacyUnit.INSTRUCTION:
        return None
    figures = {size: partial(accounting.group_epsilon, delta=delta, group_size=size) for size in accounting.GROUP_SIZES}
    return {str(size): _worst(lineage, figure, cohorts_met=size) for size, figure in figures.items()}


def _rates(spends: Sequence[Spend], at: Sequence[float] = FALSE_POSITIVE_RATES) -> dict[str, float]:
    """Return an attacker's largest true-positive rate at each of these false-positive rates."""
    worst = partial(worst_case, spends, cohorts_met=COHORTS_OF_A_UNIT)
    return {f"{rate:g}": _rounded(worst(partial(_rate, at=rate))) for rate in at}


def _rate(event: DpEvent, at: float) -> float:
    return accounting.trade_off(event, (at,))[at]


def _rate_of_pairs(pairs: Sequence[tuple[float, float]], false_positive_rate: float) -> float:
    """Return the bound on a true-positive rate that (epsilon, delta) pairs give (Kairouz, Oh and Viswanath, 2015)."""
    bounds = [1.0]
    for epsilon, delta in pairs:
        bounds.append(math.exp(min(epsilon, LARGEST_EXPONENT)) * false_positive_rate + delta)
        bounds.append(1 - math.exp(-epsilon) * (1 - delta - false_positive_rate))
    return min(bounds)


def _rounded(rate: float) -> float:
    return min(1.0, accounting.round_up(rate, RATE_DECIMALS))


def _json_number(value: float) -> float | None:
    return None if math.isinf(value) else value
