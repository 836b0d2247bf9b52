"""The ledger's file: older schema versions are brought up to date, newer ones refused."""

import json
import os
import signal
import threading
from pathlib import Path

import duckdb
import pytest

from dp_assets.privacy.chain import LedgerTampered
from resources import ledger_file
from resources.ledger import Ledger
from tests.resources.ledgers import charge, register


@pytest.fixture
def old_ledger(tmp_path: Path) -> Ledger:
    """A ledger as schema version 1 stored it: bodies as JSON with spaces, in the order in which they were written."""
    ledger = Ledger(private_root=str(tmp_path / "private"))
    charge(ledger, register(ledger, "eps-8").corpus_id, "eps-8").mark_opened()
    with duckdb.connect(str(database(ledger))) as connection:
        for sequence, body in connection.execute("select sequence, body from entries").fetchall():
            spaced = json.dumps(dict(reversed(json.loads(body).items())))
            connection.execute("update entries set body = ? where sequence = ?", (spaced, sequence))
        connection.execute("update schema_version set version = 1")
    ledger_file._known.clear()
    return ledger


def database(ledger: Ledger) -> Path:
    return Path(ledger.private_root) / "ledger" / "ledger.duckdb"


def rows(file: Path) -> list[tuple[str, ...]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute("select body, digest from entries order by sequence").fetchall()


def test_an_older_ledger_is_brought_up_to_date_and_keeps_its_entries_digests_and_anchors(old_ledger: Ledger) -> None:
    before, anchors = rows(database(old_ledger)), old_ledger._file.anchors()
    (record,) = old_ledger.state().charges.values()
    assert record.opened
    after = rows(database(old_ledger))
    assert [digest for _, digest in after] == [digest for _, digest in before]
    assert [json.loads(body) for body, _ in after] == [json.loads(body) for body, _ in before]
    assert all(body != old for (body, _), (old, _) in zip(after, before, strict=True))
    assert old_ledger._file.anchors() == anchors
    charge(old_ledger, record.corpus_id, "eps-8", "dp_generator", key="another")
    assert len(old_ledger.state().charges) == 2


def test_the_entries_of_an_older_ledger_are_kept_beside_it(old_ledger: Ledger) -> None:
    before = rows(database(old_ledger))
    old_ledger.state()
    kept = database(old_ledger).with_name("ledger-v1.duckdb")
    assert rows(kept) == before
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_copy_that_a_crash_left_unfinished_is_made_again(old_ledger: Ledger) -> None:
    before, kept = rows(database(old_ledger)), database(old_ledger).with_name("ledger-v1.duckdb")
    kept.write_bytes(b"half of a copy")
    old_ledger.state()
    assert rows(kept) == before


def test_an_edited_older_ledger_is_refused_and_left_as_it_is(old_ledger: Ledger) -> None:
    with duckdb.connect(str(database(old_ledger))) as connection:
        connection.execute("update entries set body = replace(body, '8.0', '9.0') where kind = 'registered'")
    before = rows(database(old_ledger))
    with pytest.raises(LedgerTampered):
        old_ledger.state()
    assert rows(database(old_ledger)) == before


def test_a_newer_ledger_is_refused(old_ledger: Ledger) -> None:
    with duckdb.connect(str(database(old_ledger))) as connection:
        connection.execute("update schema_version set version = 99")
    with pytest.raises(LedgerTampered, match="upgrade"):
        old_ledger.state()


def test_an_interrupt_during_a_query_of_the_ledger_is_an_interrupt(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    register(ledger)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), ledger._file._locked() as connection:
        connection.execute("select sum(a.range * b.range) from range(200_000) a, range(200_000) b")
    assert len(ledger.state().registrations) == 1
