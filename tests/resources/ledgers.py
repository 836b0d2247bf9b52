"""Ledgers for tests, and processes that charge one until they are killed."""

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.privacy.registration import Registration, Terms
from dp_assets.privacy.units import PrivacyUnit
from resources.ledger import ledger_file
from resources.ledger.ledger_file import LedgerFile
from resources.ledger.ledger_resource import Charge, ChargeRefused, Ledger
from tests.privacy.plans import small_plan


def terms(
    *, budget: float = 8.0, max_rows_per_unit: int = 2, is_public: bool = False, unit_columns: str = "user"
) -> Terms:
    return Terms(
        unit=PrivacyUnit.USER,
        unit_columns=unit_columns,
        max_rows_per_unit=max_rows_per_unit,
        cohorts=("all",),
        cohort_function="all",
        delta=1e-5,
        budget_epsilon=budget,
        is_public=is_public,
    )


def register(ledger: Ledger, *levels: str, budget: float = 8.0, locator: str = "somewhere") -> Registration:
    return ledger.register(locator=locator, terms=terms(budget=budget), plans=[small_plan(level) for level in levels])


def charge(ledger: Ledger, corpus_id: str, level: str, mechanism: str = HISTOGRAM, key: str = "key") -> Charge:
    return ledger.charge(
        plan=small_plan(level), mechanism=mechanism, corpus_id=corpus_id, cohort="all", snapshot="1", reuse_key=key
    )


def try_charge(root: str, corpus_id: str, level: str, key: str) -> bool:
    """Whether the gate admitted one charge."""
    try:
        charge(Ledger(private_root=root), corpus_id, level, key=key)
    except ChargeRefused:
        return False
    return True


# Where a process may be killed in the middle of a write: a function of the ledger's file, which of its calls in that
# write, and whether the process dies before or after it.
MOMENTS: dict[str, tuple[Any, str, int, bool]] = {
    "before the lock is taken": (LedgerFile, "_refuse_lost_ledger", 1, False),
    "once the chain is verified": (LedgerFile, "_verified", 1, True),
    "before anything is stored": (ledger_file, "_store", 1, False),
    "while it is stored": (ledger_file, "_row", 1, True),
    "after the commit": (ledger_file, "_store", 1, True),
    "between the two anchors": (ledger_file, "atomic_file", 2, False),
    "after the anchors": (LedgerFile, "_write_anchors", 1, True),
}


def die_at(moment: str, write: int) -> None:
    """Kill this process in its `write`th transaction, counted from 1, at this moment."""
    owner, name, call, after = MOMENTS[moment]
    function, append, seen = getattr(owner, name), LedgerFile.append, {"writes": 0, "calls": 0}

    def counted(self: LedgerFile, decide: Any) -> Any:
        seen["writes"] += 1
        return append(self, decide)

    def dying(*arguments: Any, **keywords: Any) -> Any:
        seen["calls"] += seen["writes"] == write
        now = seen["writes"] == write and seen["calls"] == call
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    LedgerFile.append = counted  # type: ignore[method-assign]
    setattr(owner, name, dying)


def charge_until_killed(root: str, corpus_id: str, moment: str | None, write: int, said: Connection) -> None:
    """Charge, open and settle again and again, and say what was done once it is done."""
    if moment:
        die_at(moment, write)
    ledger = Ledger(private_root=root)
    for number in range(1000):
        booked = charge(ledger, corpus_id, "eps-1.5", key=str(number))
        said.send(("charged", booked.charge_id))
        booked.mark_opened()
        said.send(("opened", booked.charge_id))
        booked.settle({"number": number}, [])
        said.send(("settled", booked.charge_id))


def run_until_killed(
    root: str, corpus_id: str, *, moment: str | None = None, write: int = 0, seconds: float = 30.0
) -> list[tuple[str, str]]:
    """What a process said that charged until it died at a moment, or was killed after so many seconds."""
    context = multiprocessing.get_context("fork")
    listening, said = context.Pipe(duplex=False)
    process = context.Process(target=charge_until_killed, args=(root, corpus_id, moment, write, said))
    process.start()
    said.close()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    heard: list[tuple[str, str]] = []
    with contextlib.suppress(EOFError):
        while True:
            heard.append(listening.recv())
    return heard
