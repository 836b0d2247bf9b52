"""The ledger's file: older schema versions are brought up to date, newer ones refused."""

import json
import os
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dp_assets.privacy.chain import Anchor, Entry, LedgerTampered, canonical, digest
from resources.ledger import ledger_file
from resources.ledger.ledger_resource import Ledger
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


def test_a_ledger_from_before_nonces_is_read_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    with monkeypatch.context() as earlier:
        earlier.setattr(ledger_file, "chain", chain_without_nonces)
        corpus_id = register(ledger, "eps-8").corpus_id
        charge(ledger, corpus_id, "eps-8")
    anchor = ledger._file.anchors()[0]
    ledger._file.anchor_files[1].write_text(json.dumps(asdict(anchor)))
    with duckdb.connect(str(database(ledger))) as connection:
        connection.execute("update schema_version set version = 2")
    ledger_file._known.clear()
    assert len(ledger.state().charges) == 1
    charge(ledger, corpus_id, "eps-8", "dp_generator", key="another")
    assert ledger.entries()[: anchor.length][-1].digest == anchor.head
    assert len(ledger.state().charges) == 2


def chain_without_nonces(head: Anchor, at: str, bodies: list[tuple[str, dict[str, Any]]]) -> list[Entry]:
    """The entries as earlier versions chained them."""
    entries: list[Entry] = []
    for kind, body in bodies:
        text = canonical(body)
        place = (head.length, kind, at, text, head.head)
        entries.append(Entry(*place, digest(*place)))
        head = Anchor(head.length + 1, entries[-1].digest)
    return entries


def test_what_is_outside_the_private_zone_tells_nothing_of_the_entries(tmp_path: Path) -> None:
    ledgers = [Ledger(private_root=str(tmp_path / name / "private")) for name in "ab"]
    for ledger in ledgers:
        ledger._file.append(lambda _: [("closed", {"corpus_id": "a", "cohort": "all", "reasons": ["ran 17"]})])
    shown = [json.loads((tmp_path / name / "released/ledger_anchor.json").read_text()) for name in "ab"]
    assert [list(one) for one in shown] == [["head"], ["head"]]
    assert shown[0] != shown[1]


def test_a_published_head_cannot_be_found_by_trying_bodies(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    body = {"corpus_id": "a", "cohort": "all", "reasons": ["ran 17"]}
    ledger._file.append(lambda _: [("closed", body)])
    first, last = ledger.entries()
    assert last.body == body
    assert digest(1, "closed", last.at, canonical(body), first.digest) != last.digest


def test_an_interrupt_during_a_query_of_the_ledger_is_an_interrupt(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    register(ledger)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    # With one thread, DuckDB looks for signals after every few vectors. Uninterrupted, the query ends by itself.
    query = "set threads = 1; select sum(hash(range) % 7) from range(4_000_000_000)"
    with pytest.raises(KeyboardInterrupt), ledger._file._locked() as connection:
        connection.execute(query)
    assert len(ledger.state().registrations) == 1
