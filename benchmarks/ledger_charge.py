"""How long a charge takes on a ledger of many entries.

    python -m benchmarks.ledger_charge [--entries 10000] [--repeats 20]

The ledger is filled with valid chained charges in bulk. A charge in a process that has read the ledger before (what a
mechanism does: it looks for a stored release first) and the first use in a new process are timed apart, in turns; every
one checks the whole chain, the anchors and the key.
"""

import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import Seconds, interleave, options, store, summaries
from dp_assets.privacy.chain import chain
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import HISTOGRAM, DpSgdPlan, PrivacyPlan, VotesPlan, make_plan
from dp_assets.privacy.registration import Registration, Terms
from dp_assets.privacy.units import PrivacyUnit
from resources.ledger import ledger_file
from resources.ledger.ledger_resource import Ledger

LEVEL, COHORT = "eps-1", "all"


def plan() -> PrivacyPlan:
    return make_plan(
        LEVEL,
        delta=1e-6,
        unit=PrivacyUnit.USER,
        max_rows_per_unit=2,
        dpsgd=DpSgdPlan(
            sampling_probability=0.01,
            steps=50,
            spare_steps=5,
            l2_clip_norm=0.5,
            noise_multiplier=0.0,
            expected_batch_size=256,
        ),
        votes=VotesPlan(num_bins=100, noise_stddev=100.0),
    )


def registered(ledger: Ledger) -> Registration:
    terms = Terms(PrivacyUnit.USER, "user", 2, (COHORT,), "all", 1e-6, 100.0, False)
    return ledger.register(locator="benchmark", terms=terms, plans=())


def fill(ledger: Ledger, corpus_id: str, entries: int) -> None:
    """Append charges in one transaction, chained as single ones would be."""
    event = event_to_json(plan().events[HISTOGRAM])
    record = ChargeRecord("", corpus_id, COHORT, LEVEL, HISTOGRAM, event, "1", "k" * 64, plan().digest, spare_steps=0)
    bodies = [("charged", asdict(record) | {"charge_id": uuid.uuid4().hex}) for _ in range(entries)]
    file = ledger._file
    with file._locked() as connection:
        appended = chain(file._verified(connection).anchor, "2026-01-01T00:00:00+00:00", bodies)
        connection.executemany(ledger_file.INSERT, [ledger_file._row(entry) for entry in appended])
        file._write_anchors(file._verified(connection).anchor)


def measure(root: Path, *, entries: int, repeats: int) -> Seconds:
    ledger = Ledger(private_root=str(root / "private"))
    corpus_id = registered(ledger).corpus_id
    fill(ledger, corpus_id, entries)

    def charge() -> None:
        ledger.charge(
            plan=plan(),
            mechanism=HISTOGRAM,
            corpus_id=corpus_id,
            cohort=COHORT,
            snapshot="1",
            reuse_key=uuid.uuid4().hex,
        )

    def first_use() -> None:
        ledger_file._known.clear()
        ledger.state()

    return interleave({"charge": charge, "first_use": first_use}, repeats=repeats)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.set_defaults(repeats=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), entries=given.entries, repeats=given.repeats)
    store("ledger_charge", {"entries": given.entries, "seconds": summaries(seconds)}, given)


if __name__ == "__main__":
    main()
