"""One decision on what a cohort is guaranteed, said alike by metadata, ledger, lineage, statement and summary."""

import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dp_assets.cli import summary
from dp_assets.cli._ledger_tables import overview, print_tables
from dp_assets.privacy.headline import Basis, guarantee
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.metadata import COHORT_EPSILON, artifact_metadata, joint_metadata
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.statements.statements import PLAN, both, charged, state_of, statement_of

RAISED = ("raised", {"corpus_id": "corpus", "budget_epsilon": 30.0, "reason": "-"})
LATER = ("charged", charged(HISTOGRAM, charge_id="later", booked=False))
CLOSED = ("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": ["steps: planned 4, ran 5"]})
LEDGERS: dict[str, tuple[list[tuple[str, dict[str, Any]]], float, Basis]] = {
    "planned": ([RAISED], PLAN.epsilon, Basis.FIXED_BEFOREHAND),
    "adaptive": ([RAISED, LATER], 30.0, Basis.BUDGET),
    "closed": ([RAISED, CLOSED], math.inf, Basis.CLOSED),
    "closed by an unbounded charge": (
        [("charged", charged(HISTOGRAM, charge_id="later", booked=False, event={"type": "non_private"})), CLOSED],
        math.inf,
        Basis.CLOSED,
    ),
    "overspent": ([LATER, LATER], math.inf, Basis.OVERSPENT),
}


def ledger_of(name: str) -> tuple[LedgerState, float, Basis]:
    bodies, epsilon, basis = LEDGERS[name]
    return state_of(*both(), *bodies), epsilon, basis


@pytest.mark.parametrize("name", LEDGERS)
def test_metadata_ledger_lineage_and_statement_say_the_same_guarantee(name: str) -> None:
    state, epsilon, basis = ledger_of(name)
    registration, ids = state.registrations["corpus"], (GENERATOR, HISTOGRAM)
    shown = artifact_metadata(state, registration, label=Label.RELEASED, cohort="all", level=PLAN.level, charge_ids=ids)
    assert shown[COHORT_EPSILON] == epsilon
    said = None if math.isinf(epsilon) else epsilon
    (of_the_ledger,), (of_the_lineage,) = overview(state)["cohorts"], joint_metadata(state, ids)["cohorts"]
    stated = statement_of(state)["guarantee"]
    for each in (of_the_ledger, of_the_lineage, stated):
        assert (each["headline_epsilon"], each["headline_basis"]) == (said, basis)


@pytest.mark.parametrize("name", LEDGERS)
def test_the_summary_and_the_tables_name_the_guarantee_and_never_what_was_spent_in_its_place(name: str) -> None:
    state, epsilon, basis = ledger_of(name)
    written = io.StringIO()
    out = Console(file=written, width=200)
    artifacts: Any = SimpleNamespace(adapter=lambda _: SimpleNamespace(record={"signal_to_noise": 0.5}))
    summary._print_guarantee(out, artifacts, state.registrations["corpus"], state, "all|eps-8")
    first = written.getvalue().split("\n")[2]
    assert basis in first
    assert ("no guarantee" in first) == math.isinf(epsilon)
    assert math.isinf(epsilon) or f"epsilon {epsilon:g} at delta" in first
    print_tables(out, overview(state))
    assert math.isinf(epsilon) or f"{epsilon:.4f}, the" in written.getvalue()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("fixed_beforehand", [True, False])
def test_without_noise_nothing_is_guaranteed_and_nothing_is_left(closed: bool, fixed_beforehand: bool) -> None:
    said = guarantee(spent=1.0, budget=8.0, fixed_beforehand=fixed_beforehand, closed=closed, without_noise=True)
    assert (said.basis, said.epsilon, said.left) == (Basis.WITHOUT_NOISE, math.inf, 0.0)


def test_what_was_spent_is_the_guarantee_only_where_all_of_it_was_fixed_beforehand() -> None:
    asked = {"spent": 3.0, "budget": 8.0, "closed": False, "without_noise": False}
    assert guarantee(fixed_beforehand=True, **asked).epsilon == 3.0
    assert guarantee(fixed_beforehand=False, **asked).epsilon == 8.0
    assert guarantee(fixed_beforehand=False, **asked).left == 5.0
