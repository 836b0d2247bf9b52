"""A map of the synthetic set: places in the plane for pool and filtered rows, and the bins whose share changed most.

The projection (t-SNE, van der Maaten and Hinton 2008) is fitted on synthetic vectors only, with a public
seed, so it is post-processing like everything drawn on it. It keeps near texts near; distances between far ones, the
size of a group and the directions mean nothing. Where there are more rows than `MOST_ROWS`, every k-th is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dp_assets.evaluation.agreement import bin_shares, noisy_shares
from dp_assets.evaluation.vote_posterior import Floats, Integers

Vectors = npt.NDArray[np.float32]

MOST_ROWS = 1500
LARGEST_PERPLEXITY = 30.0
NOTED_BINS = 5
"""At most so many bins that the votes asked for more of, and as many that they asked for less of."""
DECIMALS = 3


@dataclass(frozen=True)
class BinnedSet:
    """Texts (n,), their vectors float32 (n, d) and their bins int64 (n,)."""

    texts: Sequence[str]
    vectors: Vectors
    bin_ids: Integers


@dataclass(frozen=True)
class NotedBin:
    """A bin with its number, its shares, and the text nearest to its centre with that text's place on the map."""

    number: int
    bin_id: int
    xy: tuple[float, float]
    votes: float
    before: float
    after: float
    text: str

    @property
    def grown(self) -> bool:
        """Whether the votes asked for more of it than the pool held."""
        return self.votes > self.before


@dataclass(frozen=True)
class SyntheticMap:
    """Places of the drawn rows, float64 (n, 2) and (m, 2), and the noted bins."""

    pool_xy: Floats
    filtered_xy: Floats
    noted: tuple[NotedBin, ...]

    def to_json(self) -> dict[str, Any]:
        """The map as a JSON value, rounded."""
        places = {"pool_xy": self.pool_xy, "filtered_xy": self.filtered_xy}
        return {name: xy.round(DECIMALS).tolist() for name, xy in places.items()} | {
            "noted": [vars(noted) | {"xy": list(noted.xy)} for noted in self.noted]
        }

    @staticmethod
    def from_json(form: Mapping[str, Any]) -> "SyntheticMap":
        """The map of a JSON value."""
        noted = tuple(NotedBin(**{**bin_form, "xy": tuple(bin_form["xy"])}) for bin_form in form["noted"])
        pool_xy, filtered_xy = (np.asarray(form[name]).reshape(-1, 2) for name in ("pool_xy", "filtered_xy"))
        return SyntheticMap(pool_xy, filtered_xy, noted)


def synthetic_map(
    pool: BinnedSet, filtered: BinnedSet, *, noisy_votes: Integers, centroids: Vectors, seed: int
) -> SyntheticMap:
    """The map of a pool and of the set that was filtered from it.

    Args:
      noisy_votes: the released votes, shape (num_bins,).
      centroids: the bins, float32 (num_bins, d).
      seed: a public seed for the projection.
    """
    examples = _examples(pool, filtered, noisy_votes, centroids)
    shown = [each.vectors[_every_kth(len(each.vectors))] for each in (pool, filtered)]
    marked = np.array([vector for _, _, vector in examples], dtype=np.float32).reshape(-1, centroids.shape[1])
    pool_xy, filtered_xy, examples_xy = _places([*shown, marked], seed=seed)
    votes = noisy_shares(noisy_votes)
    before, after = (bin_shares(each.bin_ids, len(votes)) for each in (pool, filtered))
    noted = [
        NotedBin(
            number=number,
            bin_id=bin_id,
            xy=(round(float(xy[0]), DECIMALS), round(float(xy[1]), DECIMALS)),
            votes=float(votes[bin_id]),
            before=float(before[bin_id]),
            after=float(after[bin_id]),
            text=text,
        )
        for number, ((bin_id, text, _), xy) in enumerate(zip(examples, examples_xy, strict=True), start=1)
    ]
    return SyntheticMap(pool_xy, filtered_xy, tuple(noted))


def _every_kth(count: int) -> slice:
    return slice(None, None, max(1, -(-count // MOST_ROWS)))


def _places(sets: Sequence[Vectors], *, seed: int) -> list[Floats]:
    """The places of several sets on one map. Equal vectors share a place, so a kept row lies where it lay in the pool.

    Fewer than four different vectors are laid out on a line: there is no neighbourhood to keep.
    """
    from sklearn.manifold import TSNE

    stacked = np.concatenate(sets)
    different, place = np.unique(stacked, axis=0, return_inverse=True)
    if len(different) < 4:
        xy = np.stack([np.arange(len(different)), np.zeros(len(different))], axis=1)
    else:
        perplexity = min(LARGEST_PERPLEXITY, (len(different) - 1) / 3)
        init = "pca" if min(different.shape) > 1 else "random"
        xy = TSNE(2, init=init, perplexity=perplexity, random_state=seed).fit_transform(different)
    ends = np.cumsum([len(each) for each in sets])[:-1]
    return np.split(xy.astype(np.float64)[place.ravel()], ends)


def _examples(
    pool: BinnedSet, filtered: BinnedSet, noisy_votes: Integers, centroids: Vectors
) -> list[tuple[int, str, Vectors]]:
    """Bin, typical text and its vector of the bins that changed most, those that the votes asked for more of first.

    The text of a bin that grew is one that was kept or added, that of a bin that shrank one of the pool's.
    """
    change = noisy_shares(noisy_votes) - bin_shares(pool.bin_ids, len(noisy_votes))
    grown = [int(bin_id) for bin_id in np.argsort(-change, kind="stable")[:NOTED_BINS] if change[bin_id] > 0]
    shrunk = [int(bin_id) for bin_id in np.argsort(change, kind="stable")[:NOTED_BINS] if change[bin_id] < 0]
    places = [*((filtered, bin_id) for bin_id in grown), *((pool, bin_id) for bin_id in shrunk)]
    rows = [(rows, bin_id, _typical(rows, bin_id, centroids[bin_id])) for rows, bin_id in places]
    return [(bin_id, found.texts[row], found.vectors[row]) for found, bin_id, row in rows if row is not None]


def _typical(rows: BinnedSet, bin_id: int, centre: Vectors) -> int | None:
    """The row of the bin that lies nearest to its centre; None in an empty bin."""
    members = np.flatnonzero(rows.bin_ids == bin_id)
    if not len(members):
        return None
    return int(members[np.linalg.norm(rows.vectors[members] - centre, axis=1).argmin()])
