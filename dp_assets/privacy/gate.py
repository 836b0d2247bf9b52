"""The gate: whether a charge may be made. It is asked before any private row is read.

Plans booked together at registration, before any output exists, are admitted if their joint PLD fits the budget, and
count whole from then on. Any later charge may have been chosen after seeing results, so it is admitted only if the RDP
of everything charged or booked for the cohort, at the order fixed at registration, fits the budget, together with the
mechanisms of its plan that are still to come, so that a level which cannot be finished is not begun: an RDP filter is
valid under full adaptivity at a fixed order (Feldman and Zrnic, arXiv 2008.11193), a filter on PLDs is not. The
guarantee of a cohort is its budget; what is spent so far is accounting.
"""

from collections.abc import Sequence
from dataclasses import replace

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.chain import canonical
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.events import event_from_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.ledger import Booking, ChargeRecord, LedgerState, rdp_of_form
from dp_assets.privacy.registration import Registration, RegistrationError

ONE_BUDGET = ("unit", "without_user", "relation", "delta", "budget_epsilon")
"""Terms that corpora with one budget have in common."""


class BudgetExceeded(PublicError, ValueError):
    """The charge does not fit the cohort's budget. Nothing was read."""


class CohortClosed(PublicError, ValueError):
    """A mechanism of this cohort did something else than its plan; the cohort takes no more charges."""


class VoidRefused(PublicError, ValueError):
    """A charge can be voided only while nothing was read under it."""


class ContinuationRefused(PublicError, ValueError):
    """A crashed run may go on once from each checkpoint, and as often as its plan has spare steps."""


def check_plans_fit(registration: Registration, cohort: str, events: Sequence[DpEvent]) -> None:
    """The gate for plans booked together at registration, for one cohort.

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
    """The gate for one budget of two corpora and of those that each shares a budget with already.

    What was charged before the declaration counts as if it had been charged under it. So a declaration that does not
    fit changes nothing and claims nothing.

    Raises:
      RegistrationError: their terms differ where one budget needs them to be the same.
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
        total = joint.guarantee(member.corpus_id, member.cohorts)
        if not total.holds:
            raise BudgetExceeded(
                f"together these corpora have spent or booked epsilon {total.spent:g} of {total.budget:g}, and a"
                " cohort that is closed has no bound at all. Nothing was declared: raise both budgets first, which"
                " changes the guarantee, and until then claim nothing for units that are in both"
            )


def admit(state: LedgerState, request: ChargeRecord, *, to_come: Sequence[ChargeRecord] = ()) -> ChargeRecord:
    """The gate for one charge: the request as it may be booked, drawing on a booking where one matches.

    `to_come` are requests of the same cohort and plan that will follow a charge beyond the bookings: they are not
    booked with it, but have to fit beside it.

    Raises:
      CohortClosed: the cohort takes no more charges.
      RegistrationError: the request asks for a run without noise on a source not declared public, or an unknown cohort.
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
    unbooked = [one for one in to_come if _matching_booking(state, one) is None]
    _check_adaptive_budget(state, registration, [request, *unbooked])
    return request


def _admit_without_noise(registration: Registration, request: ChargeRecord) -> ChargeRecord:
    if not registration.is_public:
        raise RegistrationError("level 'no-dp' runs only on a source that was registered as public")
    return request


def _matching_booking(state: LedgerState, request: ChargeRecord) -> Booking | None:
    """An unused booking of exactly this mechanism, plan and event. A mechanism run a second time finds none left."""
    used = state.used_bookings()
    wanted = (request.corpus_id, request.cohort, request.level, request.mechanism, request.plan_digest)
    for booking in state.bookings.values():
        key = (booking.corpus_id, booking.cohort, booking.level, booking.mechanism, booking.plan_digest)
        if booking.booking_id not in used and key == wanted and booking.event == request.event:
            return booking
    return None


def _check_adaptive_budget(state: LedgerState, registration: Registration, requests: Sequence[ChargeRecord]) -> None:
    order, delta, budget = state.gate_order(registration.corpus_id), registration.delta, registration.budget_epsilon
    request, events = requests[0], [event_from_json(one.event) for one in requests]
    spent_rdp = state.spent_rdp(request.corpus_id, request.cohort, order)
    asked_rdp = sum(rdp_of_form(canonical(one.event), order) for one in requests)
    if accounting.rdp_to_epsilon(spent_rdp + asked_rdp, order, delta) <= budget:
        return
    left = _rdp_within(budget, order, delta) - spent_rdp
    fits = accounting.rdp_to_epsilon(left, order, delta) if left > 0 else 0.0
    raise BudgetExceeded(
        f"{' with '.join(one.mechanism for one in requests)} at level {request.level} needs epsilon"
        f" {accounting.epsilon(accounting.compose(events), delta):g} alone, cohort {request.cohort!r} has spent or"
        f" booked {state.cohort_epsilon(request.corpus_id, request.cohort):g} of {budget:g}; the largest single"
        f" mechanism that still fits has epsilon {fits:g}. No private row was read. Reuse the stored release, choose a"
        " smaller level, or raise the budget with `dp-instructions ledger raise`, which changes the guarantee"
    )


def _rdp_within(budget: float, order: int, delta: float) -> float:
    """The RDP at `order` whose epsilon is the budget."""
    return budget - accounting.rdp_to_epsilon(0.0, order, delta) if budget > 0 else 0.0


def check_continuation(charge: ChargeRecord, checkpoint: str) -> None:
    """Whether a crashed run under `charge` may go on from `checkpoint`, whatever the files of the run say.

    Raises:
      ContinuationRefused: the checkpoint was continued before, or the plan has no spare step left.
    """
    if checkpoint in charge.continuations:
        raise ContinuationRefused("this checkpoint was continued before; a new charge is needed")
    if charge.spare_steps is not None and len(charge.continuations) >= charge.spare_steps:
        raise ContinuationRefused("every spare step of the plan was used by a continuation; a new charge is needed")
