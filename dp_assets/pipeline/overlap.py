"""Warnings to the owner that corpora may share units. Nobody else learns whether they do."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from resources.ledger.ledger_resource import Ledger
from resources.ledger.overlap import Sketch, Sketches

OTHER_CORPORA = (
    "other corpora are registered in this data folder, and their budgets do not count what this one spends. Whether"
    " they share units with it is in the private log, and `dp-instructions corpus overlaps` shows it;"
    " `dp-instructions corpus declare-overlap` makes one budget of two corpora"
)


def note_overlaps(ledger: Ledger, corpus_id: str, unit_hashes: Sequence[str]) -> None:
    """Store the sketch of a corpus's units, and print the fraction of its units that other corpora share.

    To be called only inside a private step, which writes what is printed to the private log.
    """
    sketches = Sketches(Path(ledger.private_root))
    sketches.add(corpus_id, Sketch.of(unit_hashes))
    for other, part in sketches.parts_shared(corpus_id, ledger.state().apart_from(corpus_id)).items():
        print(f"warning: about {part:.1%} of the units of corpus {corpus_id} are in corpus {other} too")


def tell_of_other_corpora(context: dg.AssetExecutionContext, ledger: Ledger, corpus_id: str) -> None:
    """Log a warning if other corpora are registered. It depends on the registrations only, not on shared units."""
    if ledger.state().apart_from(corpus_id):
        context.log.warning(OTHER_CORPORA)
