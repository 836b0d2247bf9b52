"""The ledger's storage: one DuckDB file in the private root, opened for milliseconds under DuckDB's own file lock.

Every write reads and verifies the whole chain, decides, appends and commits while it holds the lock, so that processes
cannot race each other to the same budget. The anchor (length and last digest) is written beside the database and into
the released zone before the lock is given back; it can only lag behind a committed ledger, never run ahead of it. A
lost, shortened or restored ledger, a lost anchor and a lost or changed key are refused, never replaced by new ones.
"""

import json
import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from dp_assets.privacy import ledger as logic
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger import Anchor, ChargeRecord, Entry, LedgerState
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.registration import Registration, RegistrationError, Terms, gate_order
from dp_assets.privacy.units import keyed_hash
from resources.zones import PRIVATE_FILE_MODE, atomic_file, create_once, private_folder

Entries = list[tuple[str, Mapping[str, Any]]]

SCHEMA_VERSION = 1
LOCK_TIMEOUT_SECONDS = 60.0
CREATE = """
create table if not exists entries (
    sequence bigint primary key, kind varchar, written_at varchar, body varchar, previous varchar, digest varchar
);
create table if not exists schema_version (version bigint);
"""


class ChargeRefused(dg.Failure):
    """A charge that the gate refused: the asset fails, is not retried, and no private row was read."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(description=str(reason), allow_retries=False)


@dataclass(frozen=True)
class Charge:
    """A booked charge in the hands of a mechanism. Opening a private table marks it first."""

    record: ChargeRecord
    ledger: "Ledger"
    is_continuation: bool = False

    @property
    def charge_id(self) -> str:
        return self.record.charge_id

    @property
    def corpus_id(self) -> str:
        return self.record.corpus_id

    @property
    def snapshot(self) -> str:
        return self.record.snapshot

    @property
    def cohort(self) -> str:
        return self.record.cohort

    def mark_opened(self) -> None:
        """Record durably, once, that private rows are read under this charge. A continuation has its own entry.

        Raises:
          ChargeRefused: another run has opened this charge, it was voided, or its cohort is closed.
        """
        if self.is_continuation:
            return

        def decide(state: LedgerState) -> Entries:
            if self._usable(state).opened:
                raise ChargeRefused(
                    ValueError("another run reads under this charge; wait for it to end, then run again")
                )
            return [("opened", {"charge_id": self.charge_id})]

        self.ledger.transact(decide)

    def continued(self, checkpoint: str) -> "Charge":
        """Record durably that a crashed run goes on from this checkpoint, using one spare step.

        Raises:
          ChargeRefused: the checkpoint was continued before, the charge was voided, or its cohort is closed.
        """

        def decide(state: LedgerState) -> Entries:
            if checkpoint in self._usable(state).continuations:
                raise ChargeRefused(ValueError("this checkpoint was continued before; a new charge is needed"))
            return [("continued", {"charge_id": self.charge_id, "checkpoint": checkpoint})]

        self.ledger.transact(decide)
        return replace(self, is_continuation=True)

    def _usable(self, state: LedgerState) -> ChargeRecord:
        """The charge as the ledger has it now, which may have changed since it was booked."""
        record = state.charges[self.charge_id]
        if record.voided:
            raise ChargeRefused(logic.VoidRefused("this charge was voided meanwhile; run again to book a new one"))
        if (record.corpus_id, record.cohort) in state.closed:
            raise ChargeRefused(logic.CohortClosed("this cohort was closed meanwhile; see `ledger show`"))
        return record

    def settle(self, evidence: Mapping[str, Any], found: Sequence[Discrepancy]) -> None:
        """Close the charge if what ran is what was planned; otherwise book what ran as unbounded and close the cohort.

        Raises:
          ClaimRefused: there are discrepancies; they are named.
          ChargeRefused: the charge was voided, or its cohort closed, while the mechanism ran.
        """
        if not found:
            self._settle_as_planned(evidence)
            return
        reasons = [str(discrepancy) for discrepancy in found]
        supplement = asdict(self.record) | {
            "charge_id": uuid.uuid4().hex,
            "event": {"type": "non_private"},
            "supplement_of": self.charge_id,
            "booking_id": None,
            "opened": True,
            "settled": False,
        }
        closing = {"corpus_id": self.corpus_id, "cohort": self.cohort, "reasons": reasons}
        self.ledger.transact(lambda _: [("charged", supplement), ("closed", closing)])
        raise ClaimRefused("the run differs from its plan, so its cohort is closed: " + "; ".join(reasons))

    def _settle_as_planned(self, evidence: Mapping[str, Any]) -> None:
        def decide(state: LedgerState) -> Entries:
            charge_id = self._usable(state).charge_id
            return [("settled", {"charge_id": charge_id, "evidence": dict(evidence)})]

        self.ledger.transact(decide)


class Ledger(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The append-only list of what was spent, and the gate before every spend."""

    private_root: str

    @property
    def _folder(self) -> Path:
        return Path(self.private_root) / "ledger"

    @property
    def _database(self) -> Path:
        return self._folder / "ledger.duckdb"

    @property
    def _anchor_files(self) -> tuple[Path, Path]:
        """Beside the ledger, and in the released zone, so that a private folder restored from a backup is noticed."""
        return self._folder / "anchor.json", Path(self.private_root).parent / Zone.RELEASED / "ledger_anchor.json"

    @property
    def key(self) -> bytes:
        """The secret key of every keyed hash in this private root; made once from operating-system entropy.

        Raises:
          LedgerTampered: there is a ledger but its key is lost. A new one would make strangers of everybody.
        """
        path, is_used = private_folder(self._folder) / "key", self._is_used()
        if not path.exists():
            if is_used:
                raise logic.LedgerTampered("the ledger's key is missing; restore private/ledger/key from a backup")
            create_once(path, secrets.token_bytes(32))
        return path.read_bytes()

    def state(self) -> LedgerState:
        """What has been registered, booked and charged.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        if not self._is_used():
            return LedgerState()
        with self._locked() as connection:
            return LedgerState.of(self._verified_entries(connection))

    def transact(self, decide: Callable[[LedgerState], Entries]) -> LedgerState:
        """Append what `decide` returns for the current state, all or nothing, with no other writer in between."""
        with self._locked() as connection:
            entries = self._verified_entries(connection)
            opening: Entries = [] if entries else [("keyed", {"commitment": self._key_commitment()})]
            appended = _chain(entries, [*opening, *decide(LedgerState.of(entries))])
            connection.begin()
            for entry in appended:
                row = (entry.sequence, entry.kind, entry.at, json.dumps(entry.body), entry.previous, entry.digest)
                connection.execute("insert into entries values (?, ?, ?, ?, ?, ?)", row)
            connection.commit()
            entries = [*entries, *appended]
            self._write_anchor(Anchor.of(entries))
        self._database.chmod(PRIVATE_FILE_MODE)
        return LedgerState.of(entries)

    def register(self, *, locator: str, terms: Terms, plans: Sequence[PrivacyPlan]) -> Registration:
        """Register a source under a random id and book `plans` whole, or return its earlier registration unchanged.

        Raises:
          BudgetExceeded: the plans together exceed the budget.
          RegistrationError: the source is registered with other terms, or a plan was made for others.
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
            bookings = logic.booking_bodies(registration.corpus_id, terms.cohorts, plans)
            events = [event for plan in plans if plan.is_private for event in plan.events.values()]
            for cohort in terms.cohorts:
                logic.check_plans_fit(registration, cohort, events)
            return [("registered", registration.to_json()), *(("planned", booking) for booking in bookings)]

        return self.transact(decide).registration_of_source(registration.source_key)

    def source_key(self, locator: str) -> str:
        """The keyed hash under which a source is known."""
        return keyed_hash(self.key, "source", locator)

    def registration(self, locator: str, terms: Terms) -> Registration:
        """The registration of a source, whose terms must be the ones it was registered with.

        Raises:
          ChargeRefused: it is not registered, or on other terms.
        """
        try:
            registration = self.state().registration_of_source(self.source_key(locator))
            registration.check_unchanged(terms)
        except RegistrationError as refusal:
            raise ChargeRefused(refusal) from None
        return registration

    def bind_rows(self, corpus_id: str, snapshot: str, *, rows: str, texts: str) -> None:
        """Tie a snapshot to its rows by keyed hashes: `rows` of the prepared rows, `texts` of the source's texts.

        Raises:
          RegistrationError: the snapshot held other rows before, or another corpus holds the same texts.
        """

        def decide(state: LedgerState) -> Entries:
            known = state.snapshots.get((corpus_id, snapshot))
            if known == rows:
                return []
            if known is not None:
                raise RegistrationError(
                    "the source changed under an unchanged corpus.snapshot; give the new rows a new one"
                )
            if state.texts.get(texts, corpus_id) != corpus_id:
                raise RegistrationError("these rows are registered already under another source; use that registration")
            return [("bound", {"corpus_id": corpus_id, "snapshot": snapshot, "rows": rows, "texts": texts})]

        self.transact(decide)

    def charge(
        self, *, plan: PrivacyPlan, mechanism: str, corpus_id: str, cohort: str, snapshot: str, reuse_key: str
    ) -> Charge:
        """Book one invocation of a mechanism of `plan`, durably, before anything private is read.

        Raises:
          ChargeRefused: the gate refuses; nothing was booked.
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
        )
        admitted: list[ChargeRecord] = []

        def decide(state: LedgerState) -> Entries:
            state.registrations[corpus_id].check_plan(plan)
            admitted.append(logic.admit(state, request))
            return [("charged", asdict(admitted[0]))]

        try:
            self.transact(decide)
        except (logic.BudgetExceeded, logic.CohortClosed, RegistrationError) as refusal:
            raise ChargeRefused(refusal) from None
        return Charge(admitted[0], self)

    def raise_budget(self, corpus_id: str, budget_epsilon: float, reason: str) -> None:
        """Raise a corpus's budget, which from then on is its guarantee.

        Raises:
          RegistrationError: the corpus is unknown or the budget would not grow.
        """

        def decide(state: LedgerState) -> Entries:
            registration = state.registrations.get(corpus_id)
            if registration is None or budget_epsilon <= registration.budget_epsilon:
                raise RegistrationError(
                    "a budget can only be raised, and only of a registered corpus; see `ledger show`"
                )
            return [("raised", {"corpus_id": corpus_id, "budget_epsilon": budget_epsilon, "reason": reason})]

        self.transact(decide)

    def void(self, charge_id: str, reason: str) -> None:
        """Void a charge under which nothing was read.

        Raises:
          VoidRefused: the charge is unknown, or private rows were read under it.
        """

        def decide(state: LedgerState) -> Entries:
            charge = state.charges.get(charge_id)
            if charge is None or charge.opened or charge.voided:
                raise logic.VoidRefused("only an unopened, known charge can be voided; see `ledger show`")
            return [("voided", {"charge_id": charge_id, "reason": reason})]

        self.transact(decide)

    @contextmanager
    def _locked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that no other process shares, waiting with jitter for the file lock."""
        self._refuse_lost_ledger()
        private_folder(self._folder)
        if not self._database.exists():
            create_once(self._anchor_files[0], _anchor_text(Anchor()).encode())
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                connection = duckdb.connect(str(self._database))
                break
            except duckdb.IOException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(0.01, 0.1))
        try:
            self._database.chmod(PRIVATE_FILE_MODE)
            connection.execute(CREATE)
            yield connection
        finally:
            connection.close()

    def _is_used(self) -> bool:
        """Whether anything was ever written here, as far as files tell."""
        return self._database.exists() or any(anchor.length for anchor in self._anchors())

    def _refuse_lost_ledger(self) -> None:
        if self._is_used() and not self._database.exists():
            raise logic.LedgerTampered("the ledger is missing but its anchor is there; restore the newest copy")
        if self._database.exists() and not self._anchor_files[0].exists():
            raise logic.LedgerTampered("the ledger's anchor is missing; restore private/ledger as a whole")

    def _verified_entries(self, connection: duckdb.DuckDBPyConnection) -> list[Entry]:
        _check_schema_version(connection)
        rows = connection.execute("from entries order by sequence").fetchall()
        entries = [Entry(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5]) for row in rows]
        for anchor in (Anchor(), *self._anchors()):
            logic.verify_chain(entries, anchor)
        if entries and entries[0].body.get("commitment") != self._key_commitment():
            raise logic.LedgerTampered("the ledger was written under another key; restore private/ledger as a whole")
        return entries

    def _key_commitment(self) -> str:
        """A hash that tells whether the key is the one of the ledger, and nothing else."""
        return keyed_hash(self.key, "commitment")

    def _anchors(self) -> list[Anchor]:
        return [Anchor(**json.loads(file.read_text())) for file in self._anchor_files if file.exists()]

    def _write_anchor(self, anchor: Anchor) -> None:
        for file, zone in zip(self._anchor_files, (Zone.PRIVATE, Zone.RELEASED), strict=True):
            with atomic_file(file, zone) as temporary:
                temporary.write_text(_anchor_text(anchor))


def _anchor_text(anchor: Anchor) -> str:
    return json.dumps(asdict(anchor))


def _check_schema_version(connection: duckdb.DuckDBPyConnection) -> None:
    found = connection.execute("select max(version) from schema_version").fetchone()
    if found is None or found[0] is None:
        connection.execute("insert into schema_version values (?)", (SCHEMA_VERSION,))
    elif found[0] != SCHEMA_VERSION:
        raise logic.LedgerTampered(f"the ledger has schema version {found[0]}, this program knows {SCHEMA_VERSION}")


def _chain(entries: Sequence[Entry], bodies: Entries) -> list[Entry]:
    """The new entries that follow `entries`."""
    appended: list[Entry] = []
    head = Anchor.of(entries)
    for kind, body in bodies:
        entry = Entry.after(head, kind, datetime.now(UTC).isoformat(timespec="seconds"), json.loads(json.dumps(body)))
        appended.append(entry)
        head = Anchor(head.length + 1, entry.digest)
    return appended
