"""What must hold between two neighboring corpora, each as one assertion that a planted defect must break."""

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from tests.privacy.replay import WordsByUnit
from tests.replay.neighbors import MAX_ROWS, Neighbors
from tests.replay.training import C, Pair, Run, flat, total

# What rounding may add to the newcomer's share, as a part of the clip norm: the float64 sum's own, and where memory cut
# the micro-batches of one side otherwise, that of another shape (a hundredth of the margin of the clip).
SLACK, SLACK_OF_ANOTHER_CUT = 1e-13, 1e-5


def others_keep_their_rows(pair: Neighbors) -> None:
    """Every other unit's prepared rows are the same to the last bit and in the same order; the newcomer has few."""
    mine = pl.col("unit_id") == pl.lit(pair.newcomer)
    assert pair.joined.filter(~mine.fill_null(False)).equals(pair.without)
    assert len(pair.joined) - len(pair.without) <= MAX_ROWS


def each_sum_moves_by_the_newcomers_share_alone(without: Run, joined: Run, *, slack: float = SLACK) -> None:
    """In every step everybody else enters as before, and the sum moves by the newcomer's clipped share alone.

    It moves by at most the clip norm, and by nothing else than the share but for rounding within `slack`.
    """
    assert len(without.steps) == len(joined.steps) > 0
    for before, after in zip(without.steps, joined.steps, strict=True):
        assert torch.equal(before.adapter, after.adapter), "the steps are not taken at the same adapter"
        entering = [pair for pair in zip(after.unit_ids, after.rows, strict=True) if pair[0] != joined.newcomer]
        assert entering == list(zip(before.unit_ids, before.rows, strict=True))
        assert (joined.newcomer is None) == (after.share is None)
        change = flat(after.exact_sum) - flat(before.exact_sum)
        share = torch.zeros_like(change) if after.share is None else after.share
        assert float(change.norm()) <= joined.clip_norm
        assert float((change - share).norm()) <= slack * joined.clip_norm


def the_sum_of_all_rows_moves_by_one_share(pair: Pair, *, budget: int) -> None:
    """A unit whose every row is in one batch moves the sum by one share, clipped as a whole."""
    model = pair.model()
    change = total(model, pair.joined, budget=budget) - total(model, pair.without, budget=budget)
    own = {unit_id: rows for unit_id, rows in pair.joined.items() if unit_id == pair.newcomer}
    assert float(change.norm()) <= C
    assert float((change - total(model, own, budget=budget)).norm()) <= SLACK * C


def others_keep_their_vectors(without: pl.DataFrame, joined: pl.DataFrame) -> None:
    """Everybody else's vectors are the same to the last bit."""
    assert joined.filter(pl.col("unit_id").is_in(without["unit_id"].implode())).equals(without)


def at_most_one_vote_moves(without: npt.NDArray[np.int64], joined: npt.NDArray[np.int64]) -> None:
    """One bin gains at most one vote, and no other bin changes."""
    change = joined - without
    assert change.min() >= 0
    assert change.sum() <= 1


def both_runs_look_alike(without: Run, joined: Run) -> None:
    """Steps, progress, files, public evidence, and the requests for random words are the same, the words of a sample
    aside: one a unit and one a sampled unit, which nobody outside the process sees.
    """
    assert len(without.steps) == len(joined.steps)
    assert without.heard == joined.heard
    assert without.files == joined.files
    assert without.evidence is not None
    assert joined.evidence is not None
    assert without.evidence.public == joined.evidence.public
    assert repr(without.evidence) == repr(joined.evidence)
    assert len(without.words) == len(joined.words)
    noise = [place for place in range(len(without.words)) if place % WordsByUnit.requests >= 2]
    assert [without.words[place] for place in noise] == [joined.words[place] for place in noise]
