"""The ledger's file: one DuckDB database in the private root, opened for milliseconds under a lock of its own.

- The lock is a file beside the database, taken before DuckDB opens it. DuckDB's own lock does not suffice: it reads the
  headers first and locks then, so it may go on with headers that another process has replaced in between.
- Every use reads all entries and checks the whole chain, both anchors and the key while it holds the lock.
- Appended entries are committed before the anchors are written (one beside the database, one in the released zone), and
  the anchors before the lock is released. So an anchor may lag behind a committed ledger, but never runs ahead of it. A
  process that is killed at any point loses nothing that was committed.
- A lost, shortened or restored ledger, a lost anchor beside it, and a lost or changed key are refused, never replaced
  by new ones. A data folder with releases or private tables but without a ledger is refused too.
- A missing anchor in the released zone is written anew. Whoever deletes it loses the protection that it gave.

A process keeps the rows that it has checked and the totals that follow from them, so a long ledger is hashed and parsed
once. Later, stored rows are compared with the kept ones as they are, and only new rows are hashed. If any row differs,
all are checked from the first.

The anchor in the released zone holds the last digest only, because the number of entries reveals how often runs were
resumed.

Schema versions:

    1   bodies in any JSON form
    2   bodies in canonical form, which the digests have always covered
    3   new entries have a nonce

An older ledger is migrated at its first use, under the lock and in one transaction. Where bodies are rewritten, the old
entries are kept beside the ledger (`ledger-v1.duckdb`). Digests and anchors do not change. A newer ledger is refused.
"""

import fcntl
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from dp_assets.privacy.chain import (
    GENESIS,
    Anchor,
    Entry,
    LedgerTampered,
    canonical,
    chain,
    entries_after,
    verify_chain,
)
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.units import keyed_hash
from resources.storage.data_folder import require_known_version, write_version
from resources.storage.room import room_in
from resources.storage.zones import PRIVATE_FILE_MODE, atomic_file, create_once, private_folder, private_umask

Opened = TypeVar("Opened")
Entries = list[tuple[str, Mapping[str, Any]]]

SCHEMA_VERSION = 3
LOCK_TIMEOUT_SECONDS = 60.0
THREADS = threading.RLock()  # the lock of the file excludes other processes but not other threads
CREATE = """
create table if not exists entries (
    sequence bigint primary key, kind varchar, written_at varchar, body varchar, previous varchar, digest varchar
);
create table if not exists schema_version (version bigint);
"""
INTERRUPTED = "Query interrupted"
INSERT = "insert into entries values (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Known:
    """The part of a ledger that this process has read and verified: rows, entries, and the state they add up to."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    state: LedgerState = field(default_factory=LedgerState)


_known: dict[Path, Known] = {}


class LedgerFile:
    """The stored entries of one private root."""

    def __init__(self, private_root: Path) -> None:
        self.home, self.folder = private_root.parent, private_root / "ledger"
        self.database = self.folder / "ledger.duckdb"
        # The second lies in the released zone, so that a private folder restored from a backup is noticed.
        self.anchor_files = self.folder / "anchor.json", self.home / Zone.RELEASED / "ledger_anchor.json"

    @property
    def key(self) -> bytes:
        """The secret key of every keyed hash in this private root, made once from operating-system entropy.

        Raises:
          LedgerTampered: there is a ledger but its key is lost. A new key would change every unit id.
        """
        require_known_version(self.home)
        path, is_used = private_folder(self.folder) / "key", self.is_used()
        if not path.exists():
            if is_used:
                raise LedgerTampered("the ledger's key is missing; restore private/ledger/key from a backup")
            create_once(path, secrets.token_bytes(32))
        return path.read_bytes()

    def is_used(self) -> bool:
        """Return whether a ledger was ever written here, judging by its files or by files that only follow from one."""
        is_known = self.database.exists() or any(head != GENESIS for head in self._heads().values())
        return is_known or self._has_paid_work()

    def _has_paid_work(self) -> bool:
        """Return whether there are files that require a ledger: releases or, beside a key, private tables."""
        private = self.home / Zone.PRIVATE
        folders = [self.home / zone / "releases" for zone in Zone]
        if (self.folder / "key").exists():
            folders += [private / "artifacts", private / "checkpoints"]
        return any(next(folder.iterdir(), None) is not None for folder in folders if folder.is_dir())

    def anchors(self) -> list[Anchor]:
        """Return the anchor beside the ledger, if it exists."""
        own = self.anchor_files[0]
        return [Anchor(**json.loads(own.read_text()))] if own.exists() else []

    def _heads(self) -> dict[Path, str]:
        """Return the last digest that each existing anchor has seen."""
        return {file: json.loads(file.read_text())["head"] for file in self.anchor_files if file.exists()}

    def lags(self) -> dict[Path, int | None]:
        """Return how many entries each anchor has not seen; None for a missing anchor.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        entries, heads = self.entries(), self._heads()
        return {file: entries_after(entries, heads[file]) if file in heads else None for file in self.anchor_files}

    def state(self) -> LedgerState:
        """Return the state that all entries add up to.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        with THREADS, self._locked() as connection:
            return self._verified(connection)

    def entries(self) -> Sequence[Entry]:
        """Return all entries in their order.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written.
        """
        with THREADS, self._locked() as connection:
            self._verified(connection)
            return tuple(_known[self.database].entries)

    def append(self, decide: Callable[[LedgerState], Entries]) -> LedgerState:
        """Append what `decide` returns for the current state, all or nothing, with no other writer in between.

        Raises:
          LedgerTampered: the stored entries are not the ones that were written; nothing was appended.
        """
        commitment = self._key_commitment()  # creates the key before the ledger that depends on it
        with room_in(self.home), THREADS, self._locked() as connection:
            state = self._verified(connection)
            opening: Entries = [] if state.anchor.length else [("keyed", {"commitment": commitment})]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            appended = chain(state.anchor, now, [*opening, *decide(state)])
            _store(connection, appended)
            grown = state.after(appended)
            self._write_anchors(grown.anchor)
            write_version(self.home)
            return grown

    @contextmanager
    def _locked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection while no other process opens the database, waiting for the lock with jitter."""
        require_known_version(self.home)
        self._refuse_lost_ledger()
        with _only_process(private_folder(self.folder) / "lock"), _interrupts_as_such():
            if not self.database.exists():
                create_once(self.anchor_files[0], _anchor_text(Anchor()).encode())
                _make_database(self.database)
            with private_umask():
                connection = _wait_for(partial(duckdb.connect, str(self.database)), duckdb.IOException)
            try:
                with private_umask():
                    connection.execute(CREATE)
                yield connection
            finally:
                connection.close()

    def _refuse_lost_ledger(self) -> None:
        if self.is_used() and not self.database.exists():
            raise LedgerTampered(
                "the ledger is missing, but an anchor of it or what was made and paid under it is there: restore the"
                " newest copy, or set DP_INSTRUCTIONS_HOME to an empty folder for other people's data"
            )
        if self.database.exists() and not self.anchor_files[0].exists():
            raise LedgerTampered("the ledger's anchor is missing; restore private/ledger as a whole")

    def _verified(self, connection: duckdb.DuckDBPyConnection) -> LedgerState:
        """Return the state of all entries, after checking them against each other, the anchors and the key.

        Rows that are identical to rows which this process has checked before are not hashed again.
        """
        with private_umask():
            self._bring_up_to_date(connection)
        rows, known = _rows(connection), _known.get(self.database, Known())
        if rows[: len(known.rows)] != known.rows:
            known = Known()
        appended = [Entry(*row) for row in rows[len(known.rows) :]]
        entries = [*known.entries, *appended]
        verify_chain(entries, self.anchors(), heads=self._heads().values(), known=len(known.entries))
        if entries and entries[0].body.get("commitment") != self._key_commitment():
            raise LedgerTampered("the ledger was written under another key; restore private/ledger as a whole")
        state = known.state.after(appended)
        _known[self.database] = Known(rows, entries, state)
        return state

    def _bring_up_to_date(self, connection: duckdb.DuckDBPyConnection) -> None:
        row = connection.execute("select max(version) from schema_version").fetchone()
        version = row[0] if row else None
        if version is None:
            connection.execute("insert into schema_version values (?)", (SCHEMA_VERSION,))
        elif version == 1:
            self._migrate_from_1(connection)
        elif version == 2:
            connection.execute("update schema_version set version = ?", (SCHEMA_VERSION,))
        elif version != SCHEMA_VERSION:
            raise LedgerTampered(
                f"the ledger has schema version {version}, this program knows {SCHEMA_VERSION}; upgrade the program"
            )

    def _migrate_from_1(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Rewrite every body in canonical form, after verifying the chain."""
        entries = [_canonical_entry(Entry(*row)) for row in _rows(connection)]
        verify_chain(entries, self.anchors(), heads=self._heads().values(), known=0)
        _keep_entries(connection, self.folder / "ledger-v1.duckdb")
        connection.begin()
        connection.execute("delete from entries")
        connection.executemany(INSERT, [_row(entry) for entry in entries])
        connection.execute("update schema_version set version = ?", (SCHEMA_VERSION,))
        connection.commit()

    def _key_commitment(self) -> str:
        """Return a hash that identifies the ledger's key and reveals nothing else."""
        return keyed_hash(self.key, "commitment")

    def _write_anchors(self, anchor: Anchor) -> None:
        texts = _anchor_text(anchor), json.dumps({"head": anchor.head})
        for file, zone, text in zip(self.anchor_files, (Zone.PRIVATE, Zone.RELEASED), texts, strict=True):
            with atomic_file(file, zone) as temporary:
                temporary.write_text(text)


def _make_database(database: Path) -> None:
    """Create an empty database and move it to its path in one step: a partial one, on a full disk, would not open."""
    temporary = database.with_name(f".{database.name}.{secrets.token_hex(4)}.tmp")
    try:
        with private_umask(), duckdb.connect(str(temporary)) as connection:
            connection.execute(CREATE)
            connection.execute("checkpoint")  # raises errors here that closing would suppress
        temporary.rename(database)
    finally:
        for leftover in (temporary, temporary.with_name(f"{temporary.name}.wal")):
            leftover.unlink(missing_ok=True)


@contextmanager
def _interrupts_as_such() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C during a query, which DuckDB reports as an ordinary error."""
    try:
        yield
    except (RuntimeError, duckdb.Error) as error:
        if str(error).endswith(INTERRUPTED):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    """Hold the lock on this file, which ends with the process at the latest and is not handed to a forked one."""
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE), "r+b") as stream:
        _wait_for(partial(fcntl.lockf, stream, fcntl.LOCK_EX | fcntl.LOCK_NB), BlockingIOError)
        yield


def _wait_for(attempt: Callable[[], Opened], busy: type[Exception]) -> Opened:
    """Return what the attempt returns once it does not meet another process any more.

    Raises:
      busy: it still does after `LOCK_TIMEOUT_SECONDS`.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return attempt()
        except busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.01, 0.1))


def _rows(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute("from entries order by sequence").fetchall()


def _store(connection: duckdb.DuckDBPyConnection, entries: list[Entry]) -> None:
    """Insert all entries in one durable transaction."""
    with private_umask():
        connection.begin()
        for entry in entries:
            connection.execute(INSERT, _row(entry))
        connection.commit()


def _keep_entries(connection: duckdb.DuckDBPyConnection, copy: Path) -> None:
    """Copy the entries into a database of their own, which is either complete or absent."""
    with atomic_file(copy, Zone.PRIVATE) as temporary, private_umask():
        quoted = str(temporary).replace("'", "''")
        connection.execute(f"attach '{quoted}' as copied")
        connection.execute("create table copied.entries as from entries")
        connection.execute("detach copied")


def _row(entry: Entry) -> tuple[Any, ...]:
    return entry.sequence, entry.kind, entry.at, entry.text, entry.previous, entry.digest


def _canonical_entry(entry: Entry) -> Entry:
    return Entry(entry.sequence, entry.kind, entry.at, canonical(json.loads(entry.text)), entry.previous, entry.digest)


def _anchor_text(anchor: Anchor) -> str:
    return json.dumps(asdict(anchor))
