"""An independent recount of the votes: did each unit vote once, for a bin that follows from its own rows alone?

    recount      on the real rows: for each unit, the bins that its own rows allow
    adds_up      on public rows: the votes of all units together are the sum of those of each alone, at most one each

`adds_up` does not depend on the real rows. So it detects a step that looks across units even if no two real units have
anything in common. Both counts find bins by the same code, block by block, so the public units fill a whole block.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.privacy.units import keyed_hash
from dp_assets.selection.bins import BLOCK_ROWS, NO_BIN, nearest_bin

Count = Callable[[pl.LazyFrame], npt.NDArray[np.int64]]


def recount(vectors: pl.LazyFrame, centroids: npt.NDArray[np.float32], *, key: bytes) -> dict[str, set[int]]:
    """Return the bins that each unit of the table may vote for; `NO_BIN` if it casts no vote. Private.

    A unit has one bin, unless several of its rows share the id that decides which row votes.
    """
    least: dict[str, tuple[str, set[int]]] = {}
    for block in vectors.select("unit_id", "instruction_id", "vector").collect_batches(chunk_size=BLOCK_ROWS):
        is_given = block["vector"].is_not_null()
        bins = np.full(len(block), NO_BIN, dtype=np.int64)
        bins[is_given.to_numpy()] = nearest_bin(block["vector"].filter(is_given).to_numpy(), centroids)
        for unit_id, row_id, bin_id in zip(block["unit_id"], block["instruction_id"], bins.tolist(), strict=True):
            vote_hash = keyed_hash(key, "vote", unit_id, row_id)
            held = least.get(unit_id)
            if held is None or vote_hash < held[0]:
                least[unit_id] = (vote_hash, {bin_id})
            elif vote_hash == held[0]:
                held[1].add(bin_id)
    return {unit_id: bins for unit_id, (_, bins) in least.items()}


def is_everybody(ballots: Sequence[tuple[str, int]], allowed: Mapping[str, set[int]]) -> bool:
    """Whether all units that must vote did, and no others.

    A unit whose deciding row has no usable vector must not vote. If several rows share the deciding id and only some of
    them have a usable vector, the unit may vote or not.
    """
    voters = {unit_id for unit_id, _ in ballots}
    must = {unit_id for unit_id, bins in allowed.items() if NO_BIN not in bins}
    may = {unit_id for unit_id, bins in allowed.items() if bins != {NO_BIN}}
    return must <= voters <= may


def are_own(ballots: Sequence[tuple[str, int]], allowed: Mapping[str, set[int]]) -> bool:
    """Whether each vote is for a bin that the unit's own rows allow."""
    return all(bin_id in allowed.get(unit_id, ()) for unit_id, bin_id in ballots)


def adds_up(count: Count, centroids: npt.NDArray[np.float32]) -> bool:
    """Whether `count` gives each public unit its own vote, whatever other units are present.

    The public units share vectors and row ids with each other, and some have non-finite vectors.
    """
    first, second = centroids[0], centroids[-1]
    units: dict[str, list[npt.NDArray[np.float32]]] = {
        "first": [first],
        "the same": [first],
        "the same twice": [first, first],
        "busy": [first, second, first + second, second],
        "between": [(first + second) / 2],
        "far": [1000 * second],
        "spoilt": [np.full_like(first, np.nan)],
        "half spoilt": [np.full_like(first, np.inf), second],
    }
    alone = [count(_table([(unit_id, vectors)])) for unit_id, vectors in units.items()]
    crowd = [first + 1000 * (second - first)]  # far from all others, so that any influence on them changes their bins
    in_crowd = count(_table([("crowd", crowd)]))
    together = count(_table([*units.items(), *((f"crowd {number}", crowd) for number in range(BLOCK_ROWS))]))
    is_sum = np.array_equal(together, np.sum(alone, axis=0) + BLOCK_ROWS * in_crowd)
    return is_sum and all(votes.sum() <= 1 for votes in (*alone, in_crowd))


def _table(units: Collection[tuple[str, list[npt.NDArray[np.float32]]]]) -> pl.LazyFrame:
    """Return the rows of the units as a table. The i-th rows of all units have the same id."""
    rows = [(unit_id, f"row-{place}", vector) for unit_id, of_unit in units for place, vector in enumerate(of_unit)]
    unit_ids, row_ids, vectors = zip(*rows, strict=True)
    columns = {"unit_id": unit_ids, "instruction_id": row_ids, "vector": np.stack(vectors)}
    return pl.LazyFrame(columns, schema_overrides={"vector": pl.Array(pl.Float32, len(vectors[0]))})
