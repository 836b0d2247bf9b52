"""What several charges cost together, for one unit that may have met them.

Cohorts of one corpus are disjoint sets of units. Whoever adds or removes one unit changes one cohort, so the worst
cohort counts and not their sum (parallel composition); a unit replaced by another may change two, and one person's k
units up to k. Corpora may share people, so theirs compose. Equal charges count as often as they were made. All this
holds for mechanisms whose parameters were fixed beforehand; what is chosen later is the gate's business (`ledger.py`).
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_to_json

COHORTS_OF_A_UNIT = 1
COHORTS_OF_A_REPLACEMENT = 2


@dataclass(frozen=True)
class Spend:
    """One charge as accounting sees it: whose units it met, and what it did."""

    corpus_id: str
    cohort: str
    event: DpEvent


def worst_case(
    spends: Iterable[Spend], figure: Callable[[DpEvent], float], *, cohorts_met: int = COHORTS_OF_A_UNIT
) -> float:
    """The largest `figure` over the compositions that a change of up to `cohorts_met` cohorts of each corpus can meet.

    `figure` must not fall when an event is added. No charges make one empty composition.
    """
    composed = {json.dumps(event_to_json(event)): event for event in _compositions(spends, cohorts_met)}
    return max(figure(event) for event in composed.values())


def _compositions(spends: Iterable[Spend], cohorts_met: int) -> Iterator[DpEvent]:
    """One composition for each choice of `cohorts_met` cohorts (or all, if there are fewer) in every corpus."""
    corpora: dict[str, dict[str, list[DpEvent]]] = {}
    for spend in spends:
        corpora.setdefault(spend.corpus_id, {}).setdefault(spend.cohort, []).append(spend.event)
    choices = (itertools.combinations(cohorts.values(), min(cohorts_met, len(cohorts))) for cohorts in corpora.values())
    for chosen in itertools.product(*choices):
        yield accounting.compose([event for cohorts in chosen for events in cohorts for event in events])
