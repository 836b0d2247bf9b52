"""Overlap of corpora in one private root: an estimate from keyed sketches, which never leave the private zone.

A sketch holds the smallest keyed hashes of a corpus's unit ids (bottom-k). Two sketches are comparable up to the
smaller of their bounds. The hashes below it that both hold are shared units, and their fraction of one sketch estimates
the fraction of that corpus. With at most `SIZE` units the figure is exact. A unit that appears under another id, or in
other words where rows are the units, is not recognized.

Whether corpora overlap follows from private rows, so nothing outside the private zone may depend on it.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from dp_assets.privacy.labels import Zone
from dp_assets.privacy.units import keyed_hash
from resources.storage.zones import atomic_file

SIZE = 1024


def sketch_hash(unit_id: str, *, key: bytes) -> str:
    """Return the hash of a unit in a sketch."""
    return keyed_hash(key, "overlap", unit_id)


@dataclass(frozen=True)
class Sketch:
    """The hashes of a corpus's units up to `bound`, or all hashes where `bound` is None."""

    hashes: frozenset[str] = frozenset()
    bound: str | None = None

    @staticmethod
    def of(hashes: Iterable[str]) -> "Sketch":
        """Return the sketch of these hashes: the smallest of them."""
        smallest = nsmallest(SIZE + 1, set(hashes))
        bound = smallest[SIZE - 1] if len(smallest) > SIZE else None
        return Sketch(frozenset(smallest[:SIZE]), bound)

    def with_units_of(self, other: "Sketch") -> "Sketch":
        """Return the sketch of the union of the units."""
        bound = _smaller(self.bound, other.bound)
        joined = Sketch.of(_up_to(self.hashes | other.hashes, bound))
        return Sketch(joined.hashes, _smaller(bound, joined.bound))

    def part_shared_with(self, other: "Sketch") -> float:
        """Return the estimated fraction of these units that the other corpus holds too."""
        bound = _smaller(self.bound, other.bound)
        own = _up_to(self.hashes, bound)
        return len(own & other.hashes) / len(own) if own else 0.0


def _smaller(one: str | None, other: str | None) -> str | None:
    bounds = [bound for bound in (one, other) if bound is not None]
    return min(bounds, default=None)


def _up_to(hashes: Collection[str], bound: str | None) -> frozenset[str]:
    return frozenset(hashed for hashed in hashes if bound is None or hashed <= bound)


class Sketches:
    """The sketches of the corpora of a private root, over all prepared snapshots."""

    def __init__(self, private_root: Path) -> None:
        self._folder = private_root / "overlap"

    def add(self, corpus_id: str, sketch: Sketch) -> None:
        """Add the units of a prepared snapshot to a corpus's sketch."""
        self._write(corpus_id, self.read(corpus_id).with_units_of(sketch))

    def forget(self, corpus_id: str, hashed: str) -> None:
        """Remove an erased unit from a corpus's sketch."""
        former = self.read(corpus_id)
        if hashed in former.hashes:
            self._write(corpus_id, Sketch(former.hashes - {hashed}, former.bound))

    def read(self, corpus_id: str) -> Sketch:
        """Return the sketch of a corpus; an empty one if no snapshot was prepared."""
        file = self._file(corpus_id)
        if not file.exists():
            return Sketch()
        form = json.loads(file.read_text())
        return Sketch(frozenset(form["hashes"]), form["bound"])

    def parts_shared(self, corpus_id: str, others: Iterable[str]) -> dict[str, float]:
        """Return the estimated fraction of a corpus's units that each of `others` holds too, where above zero."""
        own = self.read(corpus_id)
        parts = {other: own.part_shared_with(self.read(other)) for other in others}
        return {other: part for other, part in parts.items() if part > 0}

    def _file(self, corpus_id: str) -> Path:
        return self._folder / f"{corpus_id}.json"

    def _write(self, corpus_id: str, sketch: Sketch) -> None:
        with atomic_file(self._file(corpus_id), Zone.PRIVATE) as temporary:
            temporary.write_text(json.dumps({"bound": sketch.bound, "hashes": sorted(sketch.hashes)}))
