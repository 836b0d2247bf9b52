"""What charges cost together: the worst of disjoint cohorts, the sum within one, and never less than they were made."""

import random

from dp_accounting import DpEvent, GaussianDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.lineage import Spend, worst_case


def strength(event: DpEvent) -> float:
    """The sum of 1 / noise squared over all Gaussians: it adds up exactly, which no epsilon does."""
    parts = getattr(event, "events", None)
    if parts is not None:
        return sum(map(strength, parts))
    return event.count * strength(event.event) if hasattr(event, "count") else 1 / event.noise_multiplier**2


def spend(cohort: str, noise_multiplier: float, corpus_id: str = "corpus") -> Spend:
    return Spend(corpus_id, cohort, GaussianDpEvent(noise_multiplier))


def test_charges_of_one_cohort_add_up_and_equal_ones_count_as_often_as_they_were_made() -> None:
    assert worst_case([spend("a", 1.0), spend("a", 2.0)], strength, cohorts_met=1) == 1.25
    assert worst_case([spend("a", 2.0)] * 3, strength, cohorts_met=1) == 0.75


def test_of_disjoint_cohorts_the_worst_counts() -> None:
    spends = [spend("a", 2.0), spend("a", 2.0), spend("b", 1.0), spend("c", 4.0)]
    assert worst_case(spends, strength, cohorts_met=1) == 1.0
    assert worst_case(spends, strength, cohorts_met=2) == 1.5
    assert worst_case(spends, strength, cohorts_met=8) == 1.5625


def test_corpora_may_share_people_so_theirs_add_up() -> None:
    spends = [spend("a", 1.0), spend("b", 2.0), spend("a", 1.0, "other"), spend("b", 0.5, "other")]
    assert worst_case(spends, strength, cohorts_met=1) == 5.0


def test_no_charges_cost_nothing() -> None:
    assert worst_case([], lambda event: accounting.epsilon(event, 1e-5), cohorts_met=1) == 0


def test_the_figure_depends_on_neither_order_nor_names() -> None:
    choose = random.Random(4)
    for _ in range(50):
        spends = [spend(choose.choice("abc"), choose.choice([0.5, 1.0, 2.0, 4.0])) for _ in range(choose.randint(1, 6))]
        totals = {
            cohort: sum(strength(one.event) for one in spends if one.cohort == cohort) for cohort in "abc"
        }  # powers of two, so that sums are exact
        assert worst_case(spends, strength, cohorts_met=1) == max(totals.values())
        assert worst_case(choose.sample(spends, len(spends)), strength, cohorts_met=1) == max(totals.values())
