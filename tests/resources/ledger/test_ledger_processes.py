"""Processes that share a ledger: they never get more than the budget, and being killed loses no charge."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dp_assets.privacy import accounting
from dp_assets.privacy.gate import VoidRefused
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.privacy.registration import GATE_ORDERS, Registration
from resources.ledger.ledger_file import Entries, LedgerFile
from resources.ledger.ledger_resource import Charge, ChargeRefused, Ledger
from tests.privacy.plans import small_plan
from tests.resources.ledgers import MOMENTS, charge, register, run_until_killed, try_charge

LEVEL, DELTA, ORDER = "eps-1.5", 1e-5, GATE_ORDERS[2]
PROCESSES, ROUNDS, ADMITTED = 8, 3, 5


def budget_for(charges: float) -> float:
    """The budget that this many charges use up by the account of the gate."""
    each = accounting.rdp(small_plan(LEVEL).events[HISTOGRAM], ORDER)
    return accounting.rdp_to_epsilon(charges * each, ORDER, DELTA)


def registered(root: Path, charges: float) -> tuple[Ledger, Registration]:
    """A ledger whose corpus has a budget for this many charges, and nothing booked."""
    ledger = Ledger(private_root=str(root / "private"))
    corpus = register(ledger, budget=budget_for(charges))
    assert corpus.gate_order == ORDER
    return ledger, corpus


@pytest.mark.slow
def test_eight_processes_that_race_for_five_charges_get_exactly_five(tmp_path: Path) -> None:
    with ProcessPoolExecutor(max_workers=PROCESSES) as pool:
        for number in range(ROUNDS):
            ledger, corpus = registered(tmp_path / str(number), ADMITTED + 0.5)
            calls = [
                pool.submit(try_charge, ledger.private_root, corpus.corpus_id, LEVEL, f"{attempt}")
                for attempt in range(2 * PROCESSES)
            ]
            assert sum(call.result() for call in calls) == ADMITTED
            assert len(ledger.state().charges) == ADMITTED


def read_and_say(root: str, said: Connection) -> None:
    """Read a ledger, and say when its database is opened and how many entries were read."""
    connect = duckdb.connect

    def heard(*args: Any, **kwargs: Any) -> Any:
        said.send("opens the database")
        return connect(*args, **kwargs)

    duckdb.connect = heard
    said.send(len(LedgerFile(Path(root)).entries()))


def test_no_process_opens_the_database_while_another_one_uses_it(tmp_path: Path) -> None:
    """DuckDB reads the headers of a database before it locks it, so a waiting process must not even try."""
    ledger, _ = registered(tmp_path, 100)
    context = multiprocessing.get_context("fork")
    heard, said = context.Pipe(duplex=False)
    process = context.Process(target=read_and_say, args=(ledger.private_root, said))

    def meanwhile(state: LedgerState) -> Entries:
        process.start()
        assert not heard.poll(1.0)
        return []

    before = len(ledger._file.entries())
    ledger._file.append(meanwhile)
    process.join(30.0)
    assert [heard.recv(), heard.recv()] == ["opens the database", before]


def check_nothing_said_was_lost(ledger: Ledger, heard: list[tuple[str, str]]) -> LedgerState:
    """Everything a killed process was told to be done is in a ledger that is sound and goes on."""
    state = ledger.state()
    for what, charge_id in heard:
        record = state.charges[charge_id]
        assert what == "charged" or getattr(record, what)
    for anchor in ledger._file.anchors():
        assert anchor.length <= state.anchor.length
    charge(ledger, next(iter(state.registrations)), LEVEL, key="after the crash")
    assert len(ledger.state().charges) == len(state.charges) + 1
    return state


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_in_the_middle_of_a_write_loses_no_charge(tmp_path: Path, moment: str) -> None:
    ledger, corpus = registered(tmp_path, 100)
    heard = run_until_killed(ledger.private_root, corpus.corpus_id, moment=moment, write=4)
    assert [what for what, _ in heard] == ["charged", "opened", "settled"]
    committed = moment in ("after the commit", "between the two anchors", "after the anchors")
    assert len(ledger.state().charges) == 1 + committed
    check_nothing_said_was_lost(ledger, heard)


@pytest.mark.slow
def test_a_process_killed_at_any_time_loses_no_charge(tmp_path: Path) -> None:
    for number in range(8):
        ledger, corpus = registered(tmp_path / str(number), 1000)
        heard = run_until_killed(ledger.private_root, corpus.corpus_id, seconds=random.uniform(0.3, 0.9))
        check_nothing_said_was_lost(ledger, heard)


def try_to(act: str, root: str, charge_id: str) -> bool:
    ledger = Ledger(private_root=root)
    try:
        if act == "open":
            Charge(ledger.state().charges[charge_id], ledger).mark_opened()
        else:
            ledger.void(charge_id, "not needed")
    except (ChargeRefused, VoidRefused):
        return False
    return True


@pytest.mark.slow
def test_a_charge_is_opened_or_voided_but_never_both(tmp_path: Path) -> None:
    ledger, corpus = registered(tmp_path, 100)
    with ProcessPoolExecutor(max_workers=2) as pool:
        for number in range(6):
            charge_id = charge(ledger, corpus.corpus_id, LEVEL, key=str(number)).charge_id
            calls = [pool.submit(try_to, act, ledger.private_root, charge_id) for act in ("open", "void")]
            assert sum(call.result() for call in calls) == 1
            record = ledger.state().charges[charge_id]
            assert record.opened != record.voided
