"""The joint cost of several charges for one unit that they may all have read.

- Cohorts of one corpus are disjoint sets of units. Adding or removing one unit changes one cohort, so the worst cohort
  counts and not the sum over cohorts (parallel composition). Replacing a unit by another may change two cohorts, and k
  units of one person up to k.
- Corpora may share people, so charges of several corpora compose.
- Equal charges count as often as they were made.

All this holds for mechanisms whose parameters were fixed beforehand. Charges chosen later are the matter of the gate
(`gate.py`).
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
    """One charge as accounting reads it: the units that were read, and the event."""

    corpus_id: str
    cohort: str
    event: DpEvent


def worst_case(spends: Iterable[Spend], figure: Callable[[DpEvent], float], *, cohorts_met: int) -> float:
    """Return the largest `figure` over all compositions that a change of up to `cohorts_met` cohorts per corpus meets.

    `figure` must not decrease when an event is added. Without charges there is one empty composition.
    """
    composed = {json.dumps(event_to_json(event)): event for event in _compositions(spends, cohorts_met)}
    return max(figure(event) for event in composed.values())


def _compositions(spends: Iterable[Spend], cohorts_met: int) -> Iterator[DpEvent]:
    """Yield one composition for each choice of `cohorts_met` cohorts (or all, if there are fewer) in every corpus."""
    corpora: dict[str, dict[str, list[DpEvent]]] = {}
    for spend in spends:
        corpora.setdefault(spend.corpus_id, {}).setdefault(spend.cohort, []).append(spend.event)
    choices = (itertools.combinations(cohorts.values(), min(cohorts_met, len(cohorts))) for cohorts in corpora.values())
    for chosen in itertools.product(*choices):
        yield accounting.compose([event for cohorts in chosen for events in cohorts for event in events])
