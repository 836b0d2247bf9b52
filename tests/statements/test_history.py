"""The history of the ledger: what each step adds, and that it ends at the figures that the ledger itself states."""

import math
import sys
from dataclasses import replace
from typing import Any

from dp_accounting import NonPrivateDpEvent

from dp_assets.privacy.chain import Anchor, Entry, chain
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.ledger_state import LedgerState, booking_bodies
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.statements.history import cohort_histories
from tests.privacy.plans import small_plan
from tests.statements.statements import CORPUS, PLAN, both, charged

Body = tuple[str, dict[str, Any]]


def entries_of(*bodies: Body, cohorts: tuple[str, ...] = ("all",)) -> list[Entry]:
    """A ledger with the corpus and its bookings of one day, and these entries of the next."""
    corpus = replace(CORPUS, cohorts=cohorts)
    opening: list[Body] = [("registered", corpus.to_json())]
    opening += [("planned", booking) for booking in booking_bodies("corpus", cohorts, [PLAN])]
    first = chain(Anchor(), "2026-11-24T23:59:59+00:00", opening)
    return [*first, *chain(Anchor(len(first), first[-1].digest), "2026-11-25T08:00:00+00:00", bodies)]


def test_a_booking_counts_at_once_and_a_charge_when_it_is_made() -> None:
    entries = entries_of(*both())
    (history,) = cohort_histories(entries, "corpus")
    total = LedgerState.of(entries).cohort_epsilon("corpus", "all")
    assert history.labels == [
        "booked\n2026-11-24",
        "dp_generator\neps-8\n2026-11-25",
        "dp_histogram\neps-8\n2026-11-25",
    ]
    assert history.answered == [total] * 3
    assert history.spent[0] == 0
    assert 0 < history.spent[1] < history.spent[2] == total


def test_the_history_shows_the_day_and_never_the_time() -> None:
    (history,) = cohort_histories(entries_of(*both()), "corpus")
    assert not any(":" in label for label in history.labels)


def test_both_lines_end_at_the_ledgers_own_figure_when_runs_were_chosen_after_results() -> None:
    entries = entries_of(*both(), ("charged", charged(HISTOGRAM, charge_id="later", booked=False)))
    (history,) = cohort_histories(entries, "corpus")
    assert history.spent[-1] == history.answered[-1] == LedgerState.of(entries).cohort_epsilon("corpus", "all")
    assert history.spent[-1] > history.spent[-2]


def test_a_voided_charge_takes_its_epsilon_back() -> None:
    void = ("voided", {"charge_id": GENERATOR, "reason": "-"})
    (history,) = cohort_histories(entries_of(("charged", charged(GENERATOR)), void), "corpus")
    assert history.labels[-1] == "voided\neps-8\n2026-11-25"
    assert history.spent[1] > 0 == history.spent[2]


def test_cohorts_have_their_own_steps_in_the_order_of_the_ledger() -> None:
    charge = ("charged", charged(GENERATOR, cohort="b", booking_id="corpus/b/eps-8/dp_generator"))
    first, second = cohort_histories(entries_of(charge, cohorts=("a", "b")), "corpus")
    assert (first.cohort, len(first.labels)) == ("a", 1)
    assert (second.cohort, len(second.labels)) == ("b", 2)


def test_a_run_without_noise_and_another_corpus_are_no_part_of_it() -> None:
    without = ("charged", charged(GENERATOR, plan=small_plan("no-dp"), booked=False))
    (history,) = cohort_histories(entries_of(without), "corpus")
    assert history.labels == ["booked\n2026-11-24"]
    assert cohort_histories(entries_of(*both()), "another") == []


def test_a_charge_that_nothing_bounds_is_infinite() -> None:
    unbounded = charged(GENERATOR, charge_id="x", booked=False, event=event_to_json(NonPrivateDpEvent()))
    (history,) = cohort_histories(entries_of(("charged", unbounded)), "corpus")
    assert history.spent[-1] == history.answered[-1] == math.inf


def test_the_steps_for_a_ledger_grow_with_its_length() -> None:
    def calls(num_charges: int) -> int:
        """How many functions are called; that follows from the ledger alone."""
        charges = [
            ("charged", charged(HISTOGRAM, charge_id=f"{number}", booked=False)) for number in range(num_charges)
        ]
        entries, counted = entries_of(*charges), [0]

        def count(*_: object) -> None:
            counted[0] += 1

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            (history,) = cohort_histories(entries, "corpus")
        finally:
            sys.setprofile(before)
        assert len(history.labels) == num_charges + 1
        assert history.spent == sorted(history.spent)
        return counted[0]

    calls(10)  # what is computed once for each form of event is remembered
    assert calls(800) < 3 * calls(400)  # squares would give 4
