"""The gate: decides whether a charge may be made, before any private row is read.

- Plans booked together at registration, before any output exists, are admitted if their joint PLD fits the budget. They
  count in full from then on.
- Any later charge may have been chosen after seeing results. It is admitted only if the RDP of everything charged or
  booked for the cohort, at the order fixed at registration, fits the budget. The mechanisms of its plan that are still
  to come are included, so that a level which cannot be finished is not begun.

An RDP filter at a fixed order is valid under full adaptivity (Feldman and Zrnic, arXiv 2008.11193); a filter on PLDs is
not. The guarantee of a cohort is its budget. What is spent so far is accounting.
"""

from collections.abc import Sequence
from dataclasses import replace

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.chain import canonical
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.events import event_from_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.ledger_state import Booking, ChargeRecord, LedgerState, rdp_of_form
from dp_assets.privacy.registration import Registration, RegistrationError

ONE_BUDGET = ("unit", "without_user", "relation", "delta", "budget_epsilon")
"""The terms that corpora of one budget must share."""


class BudgetExceeded(PublicError, ValueError):
    """The charge does not fit the cohort's budget. Nothing was read."""


class CohortClosed(PublicError, ValueError):
    """A mechanism of this cohort deviated from its plan; the cohort takes no more charges."""


class VoidRefused(PublicError, ValueError):
    """A charge can be voided only while nothing was read under it."""


class ContinuationRefused(PublicError, ValueError):
    """A crashed run may be resumed once from each checkpoint, and as often as its plan has spare steps."""


def check_plans_fit(registration: Registration, cohort: str, events: Sequence[DpEvent]) -> None:
    """Check that plans booked together at registration fit the budget of one cohort.

    Raises:
      BudgetExceeded: their joint PLD exceeds the budget.
    """
    total = accounting.epsilon(accounting.compose(events), registration.delta)
    if total > registration.budget_epsilon:
        raise BudgetExceeded(
            f"corpus.planned_levels need epsilon {total:g} together for cohort {cohort!r}, over the budget of"
            f" {registration.budget_epsilon:g}; plan fewer or smaller levels, or register a larger budget"
        )


def check_overlap(state: LedgerState, one: str, other: str) -> None:
    """Check that two corpora, and all that share a budget with either of them, may share one budget.

    What was charged before the declaration counts as if it had been charged under it. So a declaration that does not
    fit changes nothing and claims nothing.

    Raises:
      RegistrationError: terms that one budget requires to be equal differ.
      BudgetExceeded: what they spent or booked together does not fit the budget, or nothing bounds it.
    """
    joint = state.with_overlap(one, other)
    members = [joint.registrations[corpus_id] for corpus_id in joint.together(one)]
    differing = [name for name in ONE_BUDGET if len({getattr(member, name) for member in members}) > 1]
    if differing:
        raise RegistrationError(
            f"corpora of one budget need the same {', '.join(differing)}; raise the smaller budget first with `ledger"
            " raise`. The rest is fixed by registration: register one of them anew, before anything is charged"
        )
    for member in members:
        total = joint.guarantee(member.corpus_id, member.cohorts, without_noise=False)
        if not total.holds:
            raise BudgetExceeded(
                f"together these corpora have spent or booked epsilon {total.spent:g} of {total.budget:g}, and a"
                " cohort that is closed has no bound at all. Nothing was declared: raise both budgets first, which"
                " changes the guarantee, and until then claim nothing for units that are in both"
            )


def admit(state: LedgerState, request: ChargeRecord, *, to_come: Sequence[ChargeRecord]) -> ChargeRecord:
    """Return the request as it may be charged, with the booking that it uses where one matches.

    `to_come` are requests of the same cohort and plan that will follow. Those without a booking must fit the budget
    together with the request, if it has no booking either. They are not charged by this call.

    Raises:
      CohortClosed: the cohort takes no more charges.
      RegistrationError: the cohort is unknown, or a run without noise was requested on a source not declared public.
      BudgetExceeded: the charge does not fit the budget.
    """
    registration = state.registrations[request.corpus_id]
    if request.cohort not in registration.cohorts:
        raise RegistrationError(f"cohort {request.cohort!r} is not one of the registered ones; see `ledger show`")
    if state.is_closed(request.corpus_id, request.cohort):
        raise CohortClosed(f"cohort {request.cohort!r} is closed: an earlier run differed from its plan")
    if request.level == NO_DP:
        return _admit_without_noise(registration, request)
    booking = _matching_booking(state, request)
    if booking is not None:
        return replace(request, booking_id=booking.booking_id)
    unbooked = [later for later in to_come if _matching_booking(state, later) is None]
    _check_adaptive_budget(state, registration, [request, *unbooked])
    return request


def _admit_without_noise(registration: Registration, request: ChargeRecord) -> ChargeRecord:
    if not registration.is_public:
        raise RegistrationError("level 'no-dp' runs only on a source that was registered as public")
    return request


def _matching_booking(state: LedgerState, request: ChargeRecord) -> Booking | None:
    """Return an unused booking of exactly this mechanism, plan and event. Each booking pays for one run."""
    used = state.used_bookings()
    request_key = (request.corpus_id, request.cohort, request.level, request.mechanism, request.plan_digest)
    for booking in state.bookings.values():
        key = (booking.corpus_id, booking.cohort, booking.level, booking.mechanism, booking.plan_digest)
        if booking.booking_id not in used and key == request_key and booking.event == request.event:
            return booking
    return None


def _check_adaptive_budget(state: LedgerState, registration: Registration, requests: Sequence[ChargeRecord]) -> None:
    order, delta, budget = state.gate_order(registration.corpus_id), registration.delta, registration.budget_epsilon
    request, events = requests[0], [event_from_json(asked.event) for asked in requests]
    spent_rdp = state.spent_rdp(request.corpus_id, request.cohort, order)
    asked_rdp = sum(rdp_of_form(canonical(asked.event), order) for asked in requests)
    if accounting.rdp_to_epsilon(spent_rdp + asked_rdp, order, delta) <= budget:
        return
    left = _rdp_within(budget, order, delta) - spent_rdp
    fits = accounting.rdp_to_epsilon(left, order, delta) if left > 0 else 0.0
    raise BudgetExceeded(
        f"{' with '.join(asked.mechanism for asked in requests)} at level {request.level} needs epsilon"
        f" {accounting.epsilon(accounting.compose(events), delta):g} alone, cohort {request.cohort!r} has spent or"
        f" booked {state.cohort_epsilon(request.corpus_id, request.cohort):g} of {budget:g}; the largest single"
        f" mechanism that still fits has epsilon {fits:g}. No private row was read. Reuse the stored release, choose a"
        " smaller level, or raise the budget with `dp-instructions ledger raise`, which changes the guarantee"
    )


def _rdp_within(budget: float, order: int, delta: float) -> float:
    """Return the RDP at `order` whose epsilon is the budget."""
    return budget - accounting.rdp_to_epsilon(0.0, order, delta) if budget > 0 else 0.0


def check_continuation(charge: ChargeRecord, checkpoint: str) -> None:
    """Check that a crashed run under `charge` may be resumed from `checkpoint`, whatever the files of the run say.

    Raises:
      ContinuationRefused: the checkpoint was continued before, or the plan has no spare step left.
    """
    if checkpoint in charge.continuations:
        raise ContinuationRefused("this checkpoint was continued before; a new charge is needed")
    if charge.spare_steps is not None and len(charge.continuations) >= charge.spare_steps:
        raise ContinuationRefused("every spare step of the plan was used by a continuation; a new charge is needed")
