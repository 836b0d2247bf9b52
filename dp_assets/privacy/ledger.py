"""The ledger's logic: a hash-chained list of entries, the state they add up to, and the gate.

Storage is elsewhere (`resources/ledger.py`); this module is pure. Entries are only ever appended. An entry stores
events, never an epsilon, so every figure is computed anew from what was run.

    keyed        which secret key the hashes were made with
    registered   a corpus and its terms                    opened     private rows were read under a charge
    planned      one mechanism of a plan booked beforehand continued  a crashed run went on, using one spare step
    charged      one invocation of a mechanism             settled    a mechanism returned and its evidence matched
    bound        the rows of a snapshot, as a keyed hash   voided     a charge under which nothing was read
    raised       a larger budget                           closed     a cohort that takes no more charges

Gate. Plans booked together at registration, before any output exists, are admitted if their joint PLD fits the budget,
and count whole from then on. Any later charge may have been chosen after seeing results, so it is admitted only if the
RDP of everything charged or booked for the cohort, at the order fixed at registration, fits the budget: an RDP filter
is valid under full adaptivity at a fixed order (Feldman and Zrnic, arXiv 2008.11193), a filter on PLDs is not. The
guarantee of a cohort is its budget; what is spent so far is accounting.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.registration import Registration, RegistrationError

GENESIS = "0" * 64


class LedgerTampered(ValueError):
    """The stored entries are not the ones that were written: the chain is broken, shortened or replaced."""


class BudgetExceeded(ValueError):
    """The charge does not fit the cohort's budget. Nothing was read."""


class CohortClosed(ValueError):
    """A mechanism of this cohort did something else than its plan; the cohort takes no more charges."""


class VoidRefused(ValueError):
    """A charge can be voided only while nothing was read under it."""


@dataclass(frozen=True)
class Entry:
    """One row of the ledger. `digest` covers all other fields and the digest of the entry before."""

    sequence: int
    kind: str
    at: str
    body: Mapping[str, Any]
    previous: str
    digest: str

    @staticmethod
    def after(head: "Anchor", kind: str, at: str, body: Mapping[str, Any]) -> "Entry":
        """The entry that follows `head` in the chain."""
        digest = _digest(head.length, kind, at, body, head.head)
        return Entry(head.length, kind, at, body, head.head, digest)


@dataclass(frozen=True)
class Anchor:
    """Length and last digest of a ledger, kept outside it so that a shortened or restored ledger is noticed."""

    length: int = 0
    head: str = GENESIS

    @staticmethod
    def of(entries: Sequence[Entry]) -> "Anchor":
        return Anchor(len(entries), entries[-1].digest) if entries else Anchor()


def _digest(sequence: int, kind: str, at: str, body: Mapping[str, Any], previous: str) -> str:
    canonical = json.dumps([sequence, kind, at, body, previous], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def verify_chain(entries: Sequence[Entry], anchor: Anchor) -> None:
    """Check every digest, and that the entries continue what the anchor saw.

    Raises:
      LedgerTampered: an entry was edited, removed or reordered, or the ledger is shorter than its anchor.
    """
    head = GENESIS
    for expected, entry in enumerate(entries):
        recomputed = _digest(entry.sequence, entry.kind, entry.at, entry.body, entry.previous)
        if entry.sequence != expected or entry.previous != head or entry.digest != recomputed:
            raise LedgerTampered(
                f"ledger entry {expected} does not follow from the one before; restore the real ledger"
            )
        head = entry.digest
    if len(entries) < anchor.length:
        raise LedgerTampered(
            f"the ledger holds {len(entries)} entries but its anchor has seen {anchor.length}; it was cut or replaced"
            " by an older copy: restore the newest one"
        )
    if anchor.length and entries[anchor.length - 1].digest != anchor.head:
        raise LedgerTampered("the ledger is not the one its anchor has seen; restore the real ledger")


@dataclass(frozen=True)
class ChargeRecord:
    """One charge. `reuse_key` names the release it pays for, `booking_id` the booked plan that it draws on."""

    charge_id: str
    corpus_id: str
    cohort: str
    level: str
    mechanism: str
    event: Mapping[str, Any]
    snapshot: str
    reuse_key: str
    plan_digest: str
    booking_id: str | None = None
    supplement_of: str | None = None
    opened: bool = False
    settled: bool = False
    voided: bool = False
    continuations: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the charge belongs to the cohort's total. A run without noise never leaves the private zone."""
        return not self.voided and self.level != NO_DP


@dataclass(frozen=True)
class Booking:
    """One mechanism of a plan that was registered before any output existed."""

    booking_id: str
    corpus_id: str
    cohort: str
    level: str
    mechanism: str
    event: Mapping[str, Any]
    plan_digest: str


@dataclass
class LedgerState:
    """What the entries add up to."""

    registrations: dict[str, Registration] = field(default_factory=dict)
    bookings: dict[str, Booking] = field(default_factory=dict)
    charges: dict[str, ChargeRecord] = field(default_factory=dict)
    key_commitment: str | None = None
    snapshots: dict[tuple[str, str], str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    closed: set[tuple[str, str]] = field(default_factory=set)
    anchor: Anchor = field(default_factory=Anchor)

    @staticmethod
    def of(entries: Sequence[Entry]) -> "LedgerState":
        """Fold the entries, which `verify_chain` has checked."""
        state = LedgerState(anchor=Anchor.of(entries))
        for entry in entries:
            state._apply(entry.kind, entry.body)
        return state

    def _apply(self, kind: str, body: Mapping[str, Any]) -> None:
        match kind:
            case "keyed":
                self.key_commitment = body["commitment"]
            case "registered":
                registration = Registration.from_json(body)
                self.registrations[registration.corpus_id] = registration
            case "planned":
                self.bookings[body["booking_id"]] = Booking(**body)
            case "charged":
                self.charges[body["charge_id"]] = ChargeRecord(**{**body, "continuations": ()})
            case "opened" | "settled" | "voided":
                charge = self.charges[body["charge_id"]]
                marked: dict[str, Any] = {kind: True}
                self.charges[charge.charge_id] = replace(charge, **marked)
            case "continued":
                charge = self.charges[body["charge_id"]]
                seen = (*charge.continuations, body["checkpoint"])
                self.charges[charge.charge_id] = replace(charge, continuations=seen, opened=True)
            case "bound":
                self.snapshots[body["corpus_id"], body["snapshot"]] = body["rows"]
                self.texts[body["texts"]] = body["corpus_id"]
            case "raised":
                registration = self.registrations[body["corpus_id"]]
                raised = replace(registration, budget_epsilon=body["budget_epsilon"])
                self.registrations[registration.corpus_id] = raised
            case "closed":
                self.closed.add((body["corpus_id"], body["cohort"]))
            case _:
                raise LedgerTampered(f"unknown ledger entry {kind!r}: it was written by a newer version")

    def registration_of_source(self, source_key: str) -> Registration:
        """The corpus registered from this source.

        Raises:
          RegistrationError: no corpus was registered from it.
        """
        for registration in self.registrations.values():
            if registration.source_key == source_key:
                return registration
        raise RegistrationError("corpus.source is not registered; run `dp-instructions register` first")

    def charges_of(self, corpus_id: str, cohort: str) -> list[ChargeRecord]:
        """The charges that count towards a cohort's total."""
        return [
            charge
            for charge in self.charges.values()
            if charge.counts and (charge.corpus_id, charge.cohort) == (corpus_id, cohort)
        ]

    def used_bookings(self) -> set[str]:
        return {charge.booking_id for charge in self.charges.values() if charge.booking_id and not charge.voided}

    def cohort_events(self, corpus_id: str, cohort: str) -> list[DpEvent]:
        """The events that a cohort answers for: everything booked, whole, and every charge beyond the bookings."""
        booked = [b.event for b in self.bookings.values() if (b.corpus_id, b.cohort) == (corpus_id, cohort)]
        later = [charge.event for charge in self.charges_of(corpus_id, cohort) if charge.booking_id is None]
        return [event_from_json(form) for form in (*booked, *later)]

    def is_planned(self, corpus_id: str, cohort: str) -> bool:
        """Whether everything charged so far was fixed before any output existed."""
        return all(charge.booking_id is not None for charge in self.charges_of(corpus_id, cohort))

    def cohort_epsilon(self, corpus_id: str, cohort: str) -> float:
        """The headline figure: all bookings and charges of the cohort, valid under adaptive choices."""
        registration = self.registrations[corpus_id]
        event = accounting.compose(self.cohort_events(corpus_id, cohort))
        if self.is_planned(corpus_id, cohort):
            return accounting.epsilon(event, registration.delta)
        return accounting.rdp_epsilon(event, registration.delta, registration.gate_order)

    def lineage_epsilon(self, charge_ids: Iterable[str]) -> float:
        """The joint PLD epsilon of a set of charges, valid when plan and release were fixed beforehand.

        Cohorts of one corpus are disjoint sets of units, so the worst of them counts (parallel composition under
        add-or-remove-one). Corpora may share people, so theirs compose.
        """
        groups: dict[str, dict[str, list[DpEvent]]] = {}
        for charge_id in sorted(set(charge_ids)):
            charge = self.charges[charge_id]
            cohorts = groups.setdefault(charge.corpus_id, {})
            cohorts.setdefault(charge.cohort, []).append(event_from_json(charge.event))
        if not groups:
            return 0.0
        delta = max(self.registrations[corpus_id].delta for corpus_id in groups)
        choices = itertools.product(*(cohorts.values() for cohorts in groups.values()))
        return max(accounting.epsilon(accounting.compose(list(itertools.chain(*one))), delta) for one in choices)

    def find_settled(self, reuse_key: str) -> ChargeRecord | None:
        """The charge that paid for this release, if it was completed."""
        paid = (c for c in self.charges.values() if c.reuse_key == reuse_key and c.settled and not c.voided)
        return next(paid, None)

    def find_unfinished(self, reuse_key: str) -> ChargeRecord | None:
        """The newest charge for this release that was neither settled nor voided: a run that crashed or still runs."""
        unfinished = [
            c
            for c in self.charges.values()
            if c.reuse_key == reuse_key and not c.settled and not c.voided and c.supplement_of is None
        ]
        return unfinished[-1] if unfinished else None


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


def admit(state: LedgerState, request: ChargeRecord) -> ChargeRecord:
    """The gate for one charge: the request as it may be booked, drawing on a booking where one matches.

    Raises:
      CohortClosed: the cohort takes no more charges.
      RegistrationError: the request asks for a run without noise on a source not declared public, or an unknown cohort.
      BudgetExceeded: the charge does not fit the budget.
    """
    registration = state.registrations[request.corpus_id]
    if request.cohort not in registration.cohorts:
        raise RegistrationError(f"cohort {request.cohort!r} is not one of the registered ones; see `ledger show`")
    if (request.corpus_id, request.cohort) in state.closed:
        raise CohortClosed(f"cohort {request.cohort!r} is closed: an earlier run differed from its plan")
    if request.level == NO_DP:
        return _admit_without_noise(registration, request)
    booking = _matching_booking(state, request)
    if booking is not None:
        return replace(request, booking_id=booking.booking_id)
    _check_adaptive_budget(state, registration, request)
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


def _check_adaptive_budget(state: LedgerState, registration: Registration, request: ChargeRecord) -> None:
    order, delta, budget = registration.gate_order, registration.delta, registration.budget_epsilon
    spent_rdp = sum(accounting.rdp(event, order) for event in state.cohort_events(request.corpus_id, request.cohort))
    asked_rdp = accounting.rdp(event_from_json(request.event), order)
    if accounting.rdp_to_epsilon(spent_rdp + asked_rdp, order, delta) <= budget:
        return
    left = _rdp_within(budget, order, delta) - spent_rdp
    fits = accounting.rdp_to_epsilon(left, order, delta) if left > 0 else 0.0
    raise BudgetExceeded(
        f"{request.mechanism} at level {request.level} needs epsilon"
        f" {accounting.epsilon(event_from_json(request.event), delta):g} alone, cohort {request.cohort!r} has spent or"
        f" booked {state.cohort_epsilon(request.corpus_id, request.cohort):g} of {budget:g}; the largest single"
        f" mechanism that still fits has epsilon {fits:g}. No private row was read. Reuse the stored release, choose a"
        " smaller level, or raise the budget with `dp-instructions ledger raise`, which changes the guarantee"
    )


def _rdp_within(budget: float, order: int, delta: float) -> float:
    """The RDP at `order` whose epsilon is the budget."""
    return budget - accounting.rdp_to_epsilon(0.0, order, delta) if budget > 0 else 0.0


def reuse_key(**parts: Any) -> str:
    """The name of a release: a hash of everything public that decides its distribution."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def booking_bodies(corpus_id: str, cohorts: Iterable[str], plans: Iterable[Any]) -> list[dict[str, Any]]:
    """The `planned` entries of these plans for every cohort, one a mechanism."""
    return [
        {
            "booking_id": f"{corpus_id[:8]}/{cohort}/{plan.level}/{mechanism}",
            "corpus_id": corpus_id,
            "cohort": cohort,
            "level": plan.level,
            "mechanism": mechanism,
            "event": event_to_json(event),
            "plan_digest": plan.digest,
        }
        for cohort in cohorts
        for plan in plans
        if plan.is_private
        for mechanism, event in plan.events.items()
    ]
