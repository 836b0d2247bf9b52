"""The ledger's logic: its entries, and the totals that follow from them.

This module is pure. Storage is in `resources/ledger/ledger_file.py`, the hash chain in `chain.py`, the gate in
`gate.py`.

Entries are only ever appended. An entry stores events and declared budgets, never a computed epsilon, so every figure
is computed anew from what was run.

    keyed        the secret key that the hashes were made with, as a commitment
    registered   a corpus and its terms                    opened     private rows were read under a charge
    planned      one mechanism of a plan booked beforehand continued  a crashed run was resumed, using one spare step
    charged      one invocation of a mechanism             settled    a mechanism returned and its evidence matched
    bound        the rows of a snapshot, as a keyed hash   voided     a charge under which nothing was read
    raised       a larger budget                           closed     a cohort that takes no more charges
    completed    a term that is missing in a registration of an earlier version
    erased       a unit whose rows are gone, as a keyed hash
    noised       the noise that was drawn under a charge, as keyed hashes
    overlapping  two corpora that may share units and have one budget from then on
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from dp_accounting import DpEvent

from dp_assets.privacy import accounting, headline
from dp_assets.privacy.chain import Anchor, Entry, LedgerTampered, canonical
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.headline import Guarantee
from dp_assets.privacy.labels import NO_DP
from dp_assets.privacy.lineage import COHORTS_OF_A_UNIT, Spend, worst_case
from dp_assets.privacy.registration import Registration, RegistrationError

ERASED_SUFFIX = "+erased-"
"""The ledger adds this and the number of erasures to a configured snapshot. No configured name may contain it."""


@dataclass(frozen=True)
class ChargeRecord:
    """One charge. `reuse_key` names the release that it pays for, `booking_id` the booking that it uses.

    `spare_steps` is how often a crashed run may be resumed; None in entries older than that field.
    """

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
    spare_steps: int | None = None

    @property
    def counts(self) -> bool:
        """Whether the charge counts in the cohort's total. A run without noise never leaves the private zone."""
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


@dataclass(frozen=True)
class BudgetRaise:
    """A larger budget, which is the guarantee from then on."""

    corpus_id: str
    at: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True)
class Bound:
    """What a snapshot is bound to.

    `rows` and `texts` are keyed hashes of its prepared rows and of the source's texts. `preparation` is a digest of the
    public settings that prepared the rows. `content` is a keyed hash of the prepared texts with their units. The last
    two are None in older entries.
    """

    rows: str
    texts: str
    preparation: str | None = None
    content: str | None = None


CohortKey = tuple[str, str]  # corpus id, cohort


@dataclass
class LedgerState:
    """The totals that follow from the entries.

    - `booked` and `later` count the events of each cohort as canonical JSON: those of all bookings, and those of all
      charges beyond the bookings, in the cohort itself.
    - `snapshots` gives by corpus and snapshot what the snapshot is bound to.
    - `overlaps` gives for each corpus the corpora that share its budget.
    - `closed` holds the reasons of each closed cohort.
    - `erasures` holds the keyed hashes of erased units by corpus, `noise` those of the noise drawn under each charge.
    """

    registrations: dict[str, Registration] = field(default_factory=dict)
    bookings: dict[str, Booking] = field(default_factory=dict)
    charges: dict[str, ChargeRecord] = field(default_factory=dict)
    booked: dict[CohortKey, Counter[str]] = field(default_factory=dict)
    later: dict[CohortKey, Counter[str]] = field(default_factory=dict)
    key_commitment: str | None = None
    snapshots: dict[tuple[str, str], Bound] = field(default_factory=dict)
    overlaps: dict[str, frozenset[str]] = field(default_factory=dict)
    erasures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    noise: dict[str, frozenset[str]] = field(default_factory=dict)
    closed: dict[CohortKey, tuple[str, ...]] = field(default_factory=dict)
    raises: list[BudgetRaise] = field(default_factory=list)
    anchor: Anchor = field(default_factory=Anchor)

    @staticmethod
    def of(entries: Sequence[Entry]) -> "LedgerState":
        """Return the state of a whole ledger, whose entries `verify_chain` has checked."""
        return LedgerState().after(entries)

    def after(self, entries: Sequence[Entry]) -> "LedgerState":
        """Return the state after these verified entries are appended. This state does not change."""
        state = LedgerState(**{name: copy(value) for name, value in vars(self).items()})
        state.booked = {key: Counter(forms) for key, forms in self.booked.items()}
        state.later = {key: Counter(forms) for key, forms in self.later.items()}
        for entry in entries:
            state.append(entry)
        return state

    def append(self, entry: Entry) -> None:
        """Apply the next verified entry in place. For readers of a whole ledger that keep no earlier state."""
        self._apply(entry.kind, entry.body, entry.at)
        self.anchor = Anchor(entry.sequence + 1, entry.digest)

    def _apply(self, kind: str, body: Mapping[str, Any], at: str) -> None:
        match kind:
            case "charged":
                self._charge(ChargeRecord(**{**body, "continuations": ()}))
            case "opened" | "settled":
                self._mark(body["charge_id"], **{kind: True})
            case "continued":
                seen = (*self.charges[body["charge_id"]].continuations, body["checkpoint"])
                self._mark(body["charge_id"], continuations=seen, opened=True)
            case "voided":
                self._void(body["charge_id"])
            case "registered" | "completed" | "planned" | "raised" | "bound" | "overlapping":
                self._apply_terms(kind, body, at)
            case "erased":
                known = self.erasures.get(body["corpus_id"], ())
                self.erasures[body["corpus_id"]] = (*known, body["unit"])
            case "closed":
                self.closed[body["corpus_id"], body["cohort"]] = tuple(body["reasons"])
            case "noised":
                self.noise[body["charge_id"]] = frozenset(body["draws"])
            case "keyed":
                self.key_commitment = body["commitment"]
            case _:
                raise LedgerTampered(f"unknown ledger entry {kind!r}: it was written by a newer version")

    def _apply_terms(self, kind: str, body: Mapping[str, Any], at: str) -> None:
        if kind == "registered":
            self.registrations[body["corpus_id"]] = Registration.from_json(body)
        elif kind == "completed":
            registration = self.registrations[body["corpus_id"]]
            self.registrations[registration.corpus_id] = replace(registration, query=body["query"])
        elif kind == "planned":
            booking = Booking(**body)
            self.bookings[booking.booking_id] = booking
            self._count(self.booked, booking, 1)
        elif kind == "bound":
            self._bind(body)
        elif kind == "overlapping":
            self._overlap(*body["corpora"])
        else:
            registration = self.registrations[body["corpus_id"]]
            before, after = registration.budget_epsilon, body["budget_epsilon"]
            self.raises.append(BudgetRaise(registration.corpus_id, at, before, after, body["reason"]))
            self.registrations[registration.corpus_id] = replace(registration, budget_epsilon=after)

    def _bind(self, body: Mapping[str, Any]) -> None:
        bound = Bound(body["rows"], body["texts"], body.get("preparation"), body.get("content"))
        self.snapshots[body["corpus_id"], body["snapshot"]] = bound

    def _overlap(self, one: str, other: str) -> None:
        joint = frozenset((*self.together(one), *self.together(other)))
        self.overlaps |= dict.fromkeys(joint, joint)

    def with_overlap(self, one: str, other: str) -> "LedgerState":
        """Return the state as it would be if these two corpora shared a budget."""
        state = self.after(())
        state._overlap(one, other)
        return state

    def together(self, corpus_id: str) -> tuple[str, ...]:
        """Return the corpora that share a budget with this one, itself included, in the order of registration."""
        joint = self.overlaps.get(corpus_id, {corpus_id})
        return tuple(registered for registered in self.registrations if registered in joint)

    def apart_from(self, corpus_id: str) -> tuple[str, ...]:
        """Return the corpora whose budget does not count what this one spends."""
        joint = self.together(corpus_id)
        return tuple(registered for registered in self.registrations if registered not in joint)

    def holders_of(self, bound: Bound) -> set[str]:
        """Return the corpora with a snapshot bound to the same prepared rows, source texts or content."""
        return {
            corpus_id
            for (corpus_id, _), known in self.snapshots.items()
            if known.rows == bound.rows
            or known.texts == bound.texts
            or (known.content is not None and known.content == bound.content)
        }

    def gate_order(self, corpus_id: str) -> int:
        """Return the RDP order of a corpus's gate. Corpora of one budget use the order of the first registered."""
        return self.registrations[self.together(corpus_id)[0]].gate_order

    def _elsewhere(self, corpus_id: str) -> list[CohortKey]:
        """Return the cohort that spent or booked most in each other corpus of this budget: a unit may be in it too."""
        order = self.gate_order(corpus_id)
        return [
            max(((other, cohort) for cohort in self.registrations[other].cohorts), key=partial(self._own_rdp, order))
            for other in self.together(corpus_id)
            if other != corpus_id
        ]

    def _charge(self, charge: ChargeRecord) -> None:
        self.charges[charge.charge_id] = charge
        if charge.counts and charge.booking_id is None:
            self._count(self.later, charge, 1)

    def _void(self, charge_id: str) -> None:
        charge = self.charges[charge_id]
        if charge.counts and charge.booking_id is None:
            self._count(self.later, charge, -1)
        self._mark(charge_id, voided=True)

    def _mark(self, charge_id: str, **marks: Any) -> None:
        self.charges[charge_id] = replace(self.charges[charge_id], **marks)

    @staticmethod
    def _count(events: dict[CohortKey, Counter[str]], spent: ChargeRecord | Booking, by: int) -> None:
        events.setdefault((spent.corpus_id, spent.cohort), Counter())[canonical(spent.event)] += by

    def registration_of_source(self, source_key: str) -> Registration:
        """Return the corpus registered from this source.

        Raises:
          RegistrationError: no corpus was registered from it.
        """
        for registration in self.registrations.values():
            if registration.source_key == source_key:
                return registration
        raise RegistrationError("corpus.source is not registered; run `dp-instructions register` first")

    def snapshot(self, corpus_id: str, configured: str) -> str:
        """Return the public name of what is left of the snapshot `configured` after the corpus's erasures.

        The name makes the number of erased units public, but not which units they are or how many rows they had.
        """
        erased = len(self.erasures.get(corpus_id, ()))
        return f"{configured}{ERASED_SUFFIX}{erased}" if erased else configured

    def used_bookings(self) -> set[str]:
        """The ids of the bookings that charges have used."""
        return {charge.booking_id for charge in self.charges.values() if charge.booking_id and not charge.voided}

    def cohort_events(self, corpus_id: str, cohort: str) -> list[DpEvent]:
        """Return the events that count against a cohort: all its bookings, used or not, and every charge beyond them.

        Events of one cohort of each corpus that shares its budget are included.
        """
        forms = (*self.booked_forms(corpus_id, cohort), *self.later_forms(corpus_id, cohort))
        return [event_from_json(form) for form in forms]

    def booked_forms(self, corpus_id: str, cohort: str) -> list[Mapping[str, Any]]:
        """Return the events, as JSON, of all bookings of a cohort, which were made before any output existed."""
        return _forms(self.booked, (corpus_id, cohort))

    def later_forms(self, corpus_id: str, cohort: str) -> list[Mapping[str, Any]]:
        """Return the events, as JSON, of a cohort's charges beyond its bookings, and all in corpora of the same budget.

        The latter may have been chosen after this cohort's results, whether or not they were booked there.
        """
        elsewhere = [form for key in self._elsewhere(corpus_id) for form in self._own_forms(key)]
        return [*_forms(self.later, (corpus_id, cohort)), *elsewhere]

    def _own_forms(self, key: CohortKey) -> list[Mapping[str, Any]]:
        return [*_forms(self.booked, key), *_forms(self.later, key)]

    def spent_rdp(self, corpus_id: str, cohort: str, order: float) -> float:
        """Return the RDP at `order` of everything that counts against a cohort."""
        return sum(self._own_rdp(order, key) for key in ((corpus_id, cohort), *self._elsewhere(corpus_id)))

    def _own_rdp(self, order: float, key: CohortKey) -> float:
        return sum(
            count * rdp_of_form(form, order)
            for events in (self.booked, self.later)
            for form, count in events.get(key, {}).items()
            if count
        )

    def is_planned(self, corpus_id: str, cohort: str) -> bool:
        """Return whether everything charged so far was fixed before any output existed."""
        counts = [self.later.get((corpus_id, cohort), Counter())]
        for key in self._elsewhere(corpus_id):
            counts += [self.booked.get(key, Counter()), self.later.get(key, Counter())]
        return not any(any(count.values()) for count in counts)

    def cohort_epsilon(self, corpus_id: str, cohort: str) -> float:
        """Return the epsilon that a cohort has spent or booked. `guarantee` says what is guaranteed."""
        registration = self.registrations[corpus_id]
        if self.is_planned(corpus_id, cohort):
            event = accounting.compose(self.cohort_events(corpus_id, cohort))
            return accounting.epsilon(event, registration.delta)
        order = self.gate_order(corpus_id)
        return accounting.rdp_to_epsilon(self.spent_rdp(corpus_id, cohort, order), order, registration.delta)

    def guarantee(self, corpus_id: str, cohorts: Iterable[str], *, without_noise: bool) -> Guarantee:
        """Return the guarantee of these cohorts of a corpus and what they spent: the worst of them.

        `without_noise` is for artifacts that descend from a run without noise, which no figure bounds.
        """
        cohorts = tuple(cohorts)
        return headline.guarantee(
            spent=max((self.cohort_epsilon(corpus_id, cohort) for cohort in cohorts), default=0.0),
            budget=self.registrations[corpus_id].budget_epsilon,
            fixed_beforehand=all(self.is_planned(corpus_id, cohort) for cohort in cohorts),
            closed=any(self.is_closed(corpus_id, cohort) for cohort in cohorts),
            without_noise=without_noise,
        )

    def is_closed(self, corpus_id: str, cohort: str) -> bool:
        """Return whether a cohort takes no more charges: a run of it, or in a corpus of its budget, broke its plan."""
        others = set(self.together(corpus_id)) - {corpus_id}
        return (corpus_id, cohort) in self.closed or any(closed in others for closed, _ in self.closed)

    def spends(self, charge_ids: Iterable[str]) -> list[Spend]:
        """Return the charges behind an artifact as accounting reads them, each charge once."""
        charges = [self.charges[charge_id] for charge_id in sorted(set(charge_ids))]
        return [Spend(charge.corpus_id, charge.cohort, event_from_json(charge.event)) for charge in charges]

    def lineage_epsilon(self, charge_ids: Iterable[str]) -> float:
        """Return the joint PLD epsilon of a set of charges, valid when plan and release were fixed beforehand."""
        spends = self.spends(charge_ids)
        delta = max((self.registrations[spend.corpus_id].delta for spend in spends), default=0.0)
        return worst_case(spends, lambda event: accounting.epsilon(event, delta), cohorts_met=COHORTS_OF_A_UNIT)

    def find_settled(self, reuse_key: str) -> frozenset[str]:
        """Return the ids of the settled charges for this release: several if it was lost and made again."""
        charges = self.charges.values()
        return frozenset(c.charge_id for c in charges if c.reuse_key == reuse_key and c.settled and not c.voided)

    def find_unfinished(self, reuse_key: str) -> ChargeRecord | None:
        """Return the newest charge for this release, neither settled nor voided: its run crashed or still runs."""
        unfinished = [
            c
            for c in self.charges.values()
            if c.reuse_key == reuse_key and not c.settled and not c.voided and c.supplement_of is None
        ]
        return unfinished[-1] if unfinished else None


def _forms(events: Mapping[CohortKey, Counter[str]], key: CohortKey) -> list[Mapping[str, Any]]:
    return [json.loads(form) for form in events.get(key, Counter()).elements()]


@functools.lru_cache(maxsize=4096)
def rdp_of_form(form: str, order: float) -> float:
    """Return the RDP of an event in JSON form. Cached, because a ledger repeats few events many times."""
    return accounting.rdp(event_from_json(json.loads(form)), order)


def reuse_key(**parts: Any) -> str:
    """Return the name of a release: a hash of everything public that decides its distribution."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def booking_bodies(corpus_id: str, cohorts: Iterable[str], plans: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the `planned` entries of these plans for every cohort, one entry per mechanism."""
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
