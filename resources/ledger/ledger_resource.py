"""The ledger as a Dagster resource: the append-only list of charges, and the gate before every charge.

Every method that writes reads the whole ledger, decides and appends while it holds the ledger's lock
(`ledger_file.py`), so two processes cannot both spend the same budget.
"""

import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
from dp_accounting import DpEvent, NonPrivateDpEvent

from dp_assets.privacy import gate
from dp_assets.privacy.chain import Entry
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.ledger_state import Bound, ChargeRecord, LedgerState, booking_bodies
from dp_assets.privacy.plan import GENERATOR, PrivacyPlan
from dp_assets.privacy.registration import Registration, RegistrationError, Terms, gate_order
from dp_assets.privacy.units import keyed_hash
from resources.ledger.ledger_file import Entries, LedgerFile
from resources.public_failure import PublicFailure

UNBOUNDED = NonPrivateDpEvent()
READ_ALREADY = "another run reads under this charge; wait for it to end, then run again"


class ChargeRefused(PublicFailure):
    """A charge was refused or could not be settled: the asset fails without a retry, and nothing is released."""


class SnapshotConflict(ValueError):
    """A snapshot held other rows before, or another corpus holds the same rows. Private: it depends on the rows."""


@dataclass(frozen=True)
class Charge:
    """A charge in the ledger, for the mechanism that runs under it. Opening a private table marks it first."""

    record: ChargeRecord
    ledger: "Ledger"
    is_continuation: bool = False
    _openings: list[str] = field(default_factory=list, repr=False, compare=False)  # used by a continuation

    @property
    def charge_id(self) -> str:
        """Its id in the ledger."""
        return self.record.charge_id

    @property
    def corpus_id(self) -> str:
        """The corpus that it was booked for."""
        return self.record.corpus_id

    @property
    def snapshot(self) -> str:
        """The snapshot that it was booked for."""
        return self.record.snapshot

    @property
    def cohort(self) -> str:
        """The cohort that it was booked for."""
        return self.record.cohort

    def mark_opened(self) -> None:
        """Record durably, once, that private rows are read under this charge.

        A continuation has its own entry, and may open private rows once as well.

        Raises:
          ChargeRefused: another run has opened this charge, it was voided, or its cohort is closed.
        """
        if self.is_continuation:
            if self._openings:
                raise ChargeRefused(READ_ALREADY)
            self._openings.append(self.charge_id)
            return

        def decide(state: LedgerState) -> Entries:
            if self._usable(state).opened:
                raise ChargeRefused(READ_ALREADY)
            return [("opened", {"charge_id": self.charge_id})]

        self.ledger.transact(decide)

    def continued(self, checkpoint: str) -> "Charge":
        """Record durably that a crashed run is resumed from this checkpoint, using one spare step.

        Raises:
          ChargeRefused: the checkpoint was continued before, no spare step is left, the charge was voided, or its
            cohort is closed.
        """

        def decide(state: LedgerState) -> Entries:
            try:
                gate.check_continuation(self._usable(state), checkpoint)
            except gate.ContinuationRefused as refusal:
                raise ChargeRefused(str(refusal)) from None
            return [("continued", {"charge_id": self.charge_id, "checkpoint": checkpoint})]

        self.ledger.transact(decide)
        return replace(self, is_continuation=True, _openings=[])

    def _usable(self, state: LedgerState) -> ChargeRecord:
        """Return the charge as the ledger has it now, which may have changed since the charge was made."""
        record = state.charges[self.charge_id]
        if record.voided:
            raise ChargeRefused("this charge was voided meanwhile; run again to book a new one")
        if state.is_closed(record.corpus_id, record.cohort):
            raise ChargeRefused("this cohort was closed meanwhile; see `ledger show`")
        return record

    def note_noise(self, digests: Collection[str]) -> bool:
        """Record durably which noise was drawn under this charge; return whether no other charge drew any of it.

        The digests are stored as keyed hashes, in the private zone only.
        """
        draws = {keyed_hash(self.ledger.key, "noise", digest) for digest in digests}

        def decide(state: LedgerState) -> Entries:
            return [("noised", {"charge_id": self.charge_id, "draws": sorted(draws)})] if draws else []

        known = self.ledger.transact(decide).noise
        return all(draws.isdisjoint(noise) for charge_id, noise in known.items() if charge_id != self.charge_id)

    def settle(self, evidence: Mapping[str, Any], found: Sequence[Discrepancy]) -> None:
        """Settle the charge if the run matches its plan; otherwise add a charge without bound and close the cohort.

        Raises:
          ClaimRefused: there are discrepancies; the message names them without numbers, which may follow from rows.
          ChargeRefused: the charge was voided, or its cohort closed, while the mechanism ran.
        """
        if not found:
            self._settle_as_planned(evidence)
            return
        reasons = [discrepancy.in_full for discrepancy in found]
        supplement = asdict(self.record) | {
            "charge_id": uuid.uuid4().hex,
            "event": event_to_json(UNBOUNDED),
            "supplement_of": self.charge_id,
            "booking_id": None,
            "opened": True,
            "settled": False,
        }
        closing = {"corpus_id": self.corpus_id, "cohort": self.cohort, "reasons": reasons}
        self.ledger.transact(lambda _: [("charged", supplement), ("closed", closing)])
        raise ClaimRefused("the run differs from its plan, so its cohort is closed: " + "; ".join(map(str, found)))

    def _settle_as_planned(self, evidence: Mapping[str, Any]) -> None:
        def decide(state: LedgerState) -> Entries:
            charge_id = self._usable(state).charge_id
            return [("settled", {"charge_id": charge_id, "evidence": dict(evidence)})]

        self.ledger.transact(decide)


class Ledger(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The append-only list of charges, and the gate before every charge."""

    private_root: str

    @property
    def _file(self) -> LedgerFile:
        return LedgerFile(Path(self.private_root))

    @property
    def key(self) -> bytes:
        """The secret key of every keyed hash in this private root.

        Raises:
          LedgerTampered: there is a ledger but its key is lost.
        """
        return self._file.key

    def state(self) -> LedgerState:
        """Return what has been registered, booked and charged.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        return self._file.state() if self._file.is_used() else LedgerState()

    def entries(self) -> Sequence[Entry]:
        """Return all entries in their order, verified.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        return self._file.entries() if self._file.is_used() else ()

    def transact(self, decide: Callable[[LedgerState], Entries]) -> LedgerState:
        """Append what `decide` returns for the current state, all or nothing, with no other writer in between.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written; nothing was appended.
        """
        return self._file.append(decide)

    def register(self, *, locator: str, terms: Terms, plans: Sequence[PrivacyPlan]) -> Registration:
        """Register a source under a random id and book `plans` in full, or return its earlier registration unchanged.

        Raises:
          BudgetExceeded: the plans together exceed the budget.
          RegistrationError: the source is registered with other terms, or a plan was made for other terms.
        """
        registration = Registration(
            **vars(terms),
            corpus_id=uuid.uuid4().hex,
            source_key=self.source_key(locator),
            gate_order=gate_order(tuple(plans)),
        )
        for plan in plans:
            registration.check_plan(plan)

        def decide(state: LedgerState) -> Entries:
            for known in state.registrations.values():
                if known.source_key == registration.source_key:
                    known.check_unchanged(terms)
                    return []
            bookings = booking_bodies(registration.corpus_id, terms.cohorts, plans)
            events = [event for plan in plans if plan.is_private for event in plan.events.values()]
            for cohort in terms.cohorts:
                gate.check_plans_fit(registration, cohort, events)
            return [("registered", registration.to_json()), *(("planned", booking) for booking in bookings)]

        return self.transact(decide).registration_of_source(registration.source_key)

    def source_key(self, locator: str) -> str:
        """Return the keyed hash that identifies a source."""
        return keyed_hash(self.key, "source", locator)

    def registration(self, locator: str, terms: Terms) -> Registration:
        """Return the registration of a source, whose terms must be equal to `terms`.

        Raises:
          ChargeRefused: the source is not registered, or with other terms.
        """
        try:
            registration = self.state().registration_of_source(self.source_key(locator))
            registration.check_unchanged(terms)
        except RegistrationError as refusal:
            raise ChargeRefused(str(refusal)) from None
        return registration

    def check_preparation(self, corpus_id: str, snapshot: str, preparation: str) -> None:
        """Refuse other settings of preparation for a snapshot that was prepared before. Reads no row.

        Raises:
          ChargeRefused: `preparation`, a digest of public settings, differs from the one the snapshot is bound to.
        """
        bound = self.state().snapshots.get((corpus_id, snapshot))
        if bound is not None and bound.preparation not in (None, preparation):
            raise ChargeRefused(
                "settings of corpus that shape its rows (source, columns, lengths, languages, train_fraction ...)"
                " changed under an unchanged corpus.snapshot; restore them, or give corpus.snapshot a new name"
            )

    def bind_rows(
        self, corpus_id: str, snapshot: str, *, rows: str, texts: str, preparation: str, content: str | None = None
    ) -> None:
        """Bind a snapshot to its rows and to the settings that they were prepared with.

        Whether this fails depends on private rows.

        Args:
          corpus_id, snapshot: the snapshot to bind.
          rows: keyed hash of the prepared rows.
          texts: keyed hash of the source's texts.
          preparation: digest of the public settings of preparation.
          content: keyed hash of the prepared texts with their units. It does not depend on cohorts or splits.

        Raises:
          SnapshotConflict: the snapshot held other rows before, or another corpus with a budget of its own holds the
            same prepared rows or the same texts.
        """
        bound = Bound(rows, texts, preparation, content)

        def decide(state: LedgerState) -> Entries:
            known = state.snapshots.get((corpus_id, snapshot))
            if known is not None and known.rows == rows:
                return []
            if known is not None:
                raise SnapshotConflict(
                    "the source changed under an unchanged corpus.snapshot; give the new rows a new one"
                )
            if state.holders_of(bound) & set(state.apart_from(corpus_id)):
                raise SnapshotConflict(
                    "these rows are registered already under another source; use that registration, or make one budget"
                    " of both with `dp-instructions corpus declare-overlap`"
                )
            return [("bound", {"corpus_id": corpus_id, "snapshot": snapshot, **asdict(bound)})]

        self.transact(decide)

    def bind_remaining(self, corpus_id: str, *, former: str, snapshot: str, rows: str, content: str) -> None:
        """Bind the snapshot that an erasure left to the rows that are left of `former`, so that no others pass for it.

        If `former` is not bound to rows itself, nothing is known of what is left, and nothing is bound.
        """

        def decide(state: LedgerState) -> Entries:
            known = state.snapshots.get((corpus_id, former))
            if known is None or (corpus_id, snapshot) in state.snapshots:
                return []
            left = replace(known, rows=rows, content=content)
            return [("bound", {"corpus_id": corpus_id, "snapshot": snapshot, **asdict(left)})]

        self.transact(decide)

    def charge(
        self,
        *,
        plan: PrivacyPlan,
        mechanism: str,
        corpus_id: str,
        cohort: str,
        snapshot: str,
        reuse_key: str,
        query: str | None = None,
    ) -> Charge:
        """Charge one invocation of a mechanism of `plan`, durably, before anything private is read.

        The mechanisms that follow in the plan must fit the budget too, so that no level is begun that cannot be
        finished.

        Args:
          plan, mechanism: the plan, and the name of the mechanism in it.
          corpus_id, cohort, snapshot: the rows that will be read.
          reuse_key: the name of the release that the charge pays for.
          query: the digest of the query. It becomes a term of a registration from before there was that term.

        Raises:
          ChargeRefused: the gate refuses; nothing was charged.
        """
        request = ChargeRecord(
            charge_id=uuid.uuid4().hex,
            corpus_id=corpus_id,
            cohort=cohort,
            level=plan.level,
            mechanism=mechanism,
            event=event_to_json(plan.events[mechanism]),
            snapshot=snapshot,
            reuse_key=reuse_key,
            plan_digest=plan.digest,
            spare_steps=plan.dpsgd.spare_steps if mechanism == GENERATOR else 0,
        )
        to_come = [
            replace(request, mechanism=name, event=event_to_json(event)) for name, event in _after(mechanism, plan)
        ]
        admitted: list[ChargeRecord] = []

        def decide(state: LedgerState) -> Entries:
            registration = state.registrations[corpus_id]
            registration.check_plan(plan)
            admitted.append(gate.admit(state, request, to_come=to_come))
            is_lacking = registration.query is None and query is not None
            completed: Entries = [("completed", {"corpus_id": corpus_id, "query": query})] if is_lacking else []
            return [*completed, ("charged", asdict(admitted[0]))]

        try:
            self.transact(decide)
        except (gate.BudgetExceeded, gate.CohortClosed, RegistrationError) as refusal:
            raise ChargeRefused(str(refusal)) from None
        return Charge(admitted[0], self)

    def raise_budget(self, corpus_id: str, budget_epsilon: float, reason: str) -> None:
        """Raise the budget of a corpus and of those that share it. From then on it is their guarantee.

        Raises:
          RegistrationError: the corpus is unknown, the budget would not grow, or it is no finite number.
        """

        def decide(state: LedgerState) -> Entries:
            registration = state.registrations.get(corpus_id)
            if registration is None or not registration.budget_epsilon < budget_epsilon < math.inf:
                raise RegistrationError(
                    "a budget can only be raised, to a finite one, and only of a registered corpus; see `ledger show`"
                )
            raised = {"budget_epsilon": budget_epsilon, "reason": reason}
            return [("raised", {"corpus_id": member, **raised}) for member in state.together(corpus_id)]

        self.transact(decide)

    def declare_overlap(self, one: str, other: str, reason: str) -> None:
        """Give two corpora that may share units one budget: the charges of both count in the account of each.

        Raises:
          RegistrationError: a corpus is unknown, or both were not registered on terms that one budget can have.
          BudgetExceeded: what they spent or booked does not fit one budget, or is unbounded.
        """

        def decide(state: LedgerState) -> Entries:
            if one == other or not {one, other} <= state.registrations.keys():
                raise RegistrationError("an overlap is of two registered corpora; see `ledger show` for their ids")
            if other in state.together(one):
                return []
            gate.check_overlap(state, one, other)
            return [("overlapping", {"corpora": [one, other], "reason": reason})]

        self.transact(decide)

    def void(self, charge_id: str, reason: str) -> None:
        """Void a charge under which nothing was read.

        Raises:
          VoidRefused: the charge is unknown, or private rows were read under it.
        """

        def decide(state: LedgerState) -> Entries:
            charge = state.charges.get(charge_id)
            if charge is None or charge.opened or charge.voided:
                raise gate.VoidRefused("only an unopened, known charge can be voided; see `ledger show`")
            return [("voided", {"charge_id": charge_id, "reason": reason})]

        self.transact(decide)

    def erased_hash(self, unit_id: str) -> str:
        """Return the keyed hash that identifies an erased unit, so that its rows are dropped again."""
        return keyed_hash(self.key, "erased", unit_id)

    def record_erasure(self, corpus_id: str, unit_id: str, reason: str) -> None:
        """Record durably that a unit's rows are erased, which renames the corpus's snapshot. Repeating adds nothing.

        Raises:
          RegistrationError: the corpus is unknown.
        """
        unit = self.erased_hash(unit_id)

        def decide(state: LedgerState) -> Entries:
            if corpus_id not in state.registrations:
                raise RegistrationError("only a unit of a registered corpus can be erased; see `ledger show`")
            if unit in state.erasures.get(corpus_id, ()):
                return []
            return [("erased", {"corpus_id": corpus_id, "unit": unit, "reason": reason})]

        self.transact(decide)


def _after(mechanism: str, plan: PrivacyPlan) -> list[tuple[str, DpEvent]]:
    """Return the later mechanisms of a plan, with their events, in the order of the graph."""
    names = list(plan.events)
    return [(name, plan.events[name]) for name in names[names.index(mechanism) + 1 :]]
