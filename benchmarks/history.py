"""How the history of a cohort's epsilon grows with the ledger.

    python -m benchmarks.history [--entries 1000 10000] [--repeats 7]

Ledgers of unplanned charges for the same few plans, as a cohort that is charged again and again has them; each length
is read in turns, so that their ratio tells the growth.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.harness import interleave, options, ratio, store, summaries
from benchmarks.ledger_charge import COHORT, LEVEL, plan
from dp_assets.privacy.chain import Anchor, Entry, chain
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.registration import Registration
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.statements.history import cohort_histories

CORPUS = "corpus"


def ledger_of(charges: int) -> list[Entry]:
    """A registered corpus and this many charges, half of them the generator's."""
    made, terms = plan(), (PrivacyUnit.USER, "user", 2, (COHORT,), "all", 1e-6, 100.0, False)
    corpus = Registration(*terms, corpus_id=CORPUS, source_key="source", gate_order=8)
    bodies: list[tuple[str, dict[str, Any]]] = [("registered", corpus.to_json())]
    for number in range(charges):
        mechanism = sorted(made.events)[number % 2]
        event = event_to_json(made.events[mechanism])
        record = ChargeRecord(
            f"charge-{number}", CORPUS, COHORT, LEVEL, mechanism, event, "1", "k" * 64, made.digest, spare_steps=0
        )
        bodies.append(("charged", asdict(record)))
    return chain(Anchor(), "2026-01-01T00:00:00+00:00", bodies)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000])
    given = parser.parse_args()
    sides = {str(entries): partial(cohort_histories, ledger_of(entries), CORPUS) for entries in given.entries}
    seconds = interleave(sides, repeats=given.repeats)
    shortest, longest = str(min(given.entries)), str(max(given.entries))
    growth = ratio(seconds[longest], seconds[shortest])
    store("history", {"seconds": summaries(seconds), "longest_over_shortest": growth}, given)


if __name__ == "__main__":
    main()
