"""The guarantee of a cohort, decided only here, for metadata, statements, reports and the command line.

- Everything was fixed before any output existed: the epsilon of what was fixed is the guarantee.
- A run was chosen after results: only the budget, which the gate enforced, is a guarantee. What was spent so far is
  accounting.
- A run differed from its plan, ran without noise or exceeded the budget: nothing is guaranteed.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """What a headline epsilon rests on, in the words of statements."""

    FIXED_BEFOREHAND = "everything was fixed before any output existed"
    BUDGET = "the budget, since some runs were chosen after results"
    CLOSED = "none, since a run differed from its plan and the cohort is closed"
    OVERSPENT = "none, since more was spent than the budget"
    WITHOUT_NOISE = "none, since it ran without noise"


@dataclass(frozen=True)
class Guarantee:
    """The guarantee of one or several cohorts: the worst of them.

    `epsilon` is the headline, infinite where nothing is guaranteed. `spent` is everything charged or booked so far. It
    is accounting, and not a guarantee where a run was chosen after results.
    """

    basis: Basis
    epsilon: float
    spent: float
    budget: float

    @property
    def holds(self) -> bool:
        """Whether anything is guaranteed."""
        return math.isfinite(self.epsilon)

    @property
    def left(self) -> float:
        """The part of the budget that may still be charged; zero where nothing is guaranteed."""
        return max(0.0, self.budget - self.spent) if self.holds else 0.0


def guarantee(*, spent: float, budget: float, fixed_beforehand: bool, closed: bool, without_noise: bool) -> Guarantee:
    """Return the guarantee of cohorts that have spent or booked at most `spent`.

    Args:
      fixed_beforehand: every charge and booking was fixed before any output existed.
      closed: a run of one of them differed from its plan.
      without_noise: the artifact in question descends from a run without noise.
    """
    basis = _basis(spent > budget, fixed_beforehand=fixed_beforehand, closed=closed, without_noise=without_noise)
    epsilon = {Basis.FIXED_BEFOREHAND: spent, Basis.BUDGET: budget}.get(basis, math.inf)
    return Guarantee(basis, epsilon, spent, budget)


def _basis(overspent: bool, *, fixed_beforehand: bool, closed: bool, without_noise: bool) -> Basis:
    if without_noise:
        return Basis.WITHOUT_NOISE
    if closed:
        return Basis.CLOSED
    if overspent:
        return Basis.OVERSPENT
    return Basis.FIXED_BEFOREHAND if fixed_beforehand else Basis.BUDGET
