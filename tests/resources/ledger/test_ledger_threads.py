"""Threads of one process share DuckDB's file lock, and must not share the budget by it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dp_assets.privacy import accounting
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.privacy.registration import GATE_ORDERS
from resources.ledger.ledger_resource import Ledger
from tests.privacy.plans import small_plan
from tests.resources.ledgers import register, try_charge

LEVEL, DELTA, ORDER = "eps-1.5", 1e-5, GATE_ORDERS[2]
THREADS, ADMITTED = 8, 5


def test_threads_that_race_for_five_charges_get_exactly_five(tmp_path: Path) -> None:
    each = accounting.rdp(small_plan(LEVEL).events[HISTOGRAM], ORDER)
    ledger = Ledger(private_root=str(tmp_path / "private"))
    corpus = register(ledger, budget=accounting.rdp_to_epsilon((ADMITTED + 0.5) * each, ORDER, DELTA))
    with ThreadPoolExecutor(THREADS) as pool:
        calls = [
            pool.submit(try_charge, ledger.private_root, corpus.corpus_id, LEVEL, f"{attempt}")
            for attempt in range(2 * THREADS)
        ]
        assert sum(call.result() for call in calls) == ADMITTED
    assert len(ledger.state().charges) == ADMITTED
