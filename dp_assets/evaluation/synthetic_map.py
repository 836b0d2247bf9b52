"""A map of the synthetic set: the pool and the filtered rows as points in the plane, and the bins that changed most.

The projection (t-SNE, van der Maaten and Hinton 2008) is fitted on synthetic vectors only, with a public seed. So the
map is post-processing. It keeps near texts near; distances between far texts, sizes of groups and directions have no
meaning. Of a set with more rows than `MOST_ROWS`, every k-th row is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_assets.arrays import Floats, Integers, Vectors
from dp_assets.evaluation.agreement import bin_shares, noisy_shares

MOST_ROWS = 1500
LARGEST_PERPLEXITY = 30.0
NOTED_BINS = 5
"""The most bins to note of those whose share the votes raise, and of those whose share they lower."""
DECIMALS = 3


@dataclass(frozen=True)
class BinnedSet:
    """Texts (n,), their vectors float32 (n, d) and their bins int64 (n,)."""

    texts: Sequence[str]
    vectors: Vectors
    bin_ids: Integers


@dataclass(frozen=True)
class NotedBin:
    """A bin with its number, its shares, and the text nearest to its center with that text's point on the map."""

    number: int
    bin_id: int
    xy: tuple[float, float]
    votes: float
    before: float
    after: float
    text: str

    @property
    def grown(self) -> bool:
        """Whether the bin's share of the votes is larger than its share of the pool."""
        return self.votes > self.before


@dataclass(frozen=True)
class SyntheticMap:
    """The points of the rows shown, float64 (n, 2) and (m, 2), and the noted bins."""

    pool_xy: Floats
    filtered_xy: Floats
    noted: tuple[NotedBin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the map as a JSON value, with rounded coordinates."""
        points = {"pool_xy": self.pool_xy, "filtered_xy": self.filtered_xy}
        return {name: xy.round(DECIMALS).tolist() for name, xy in points.items()} | {
            "noted": [vars(noted) | {"xy": list(noted.xy)} for noted in self.noted]
        }

    @staticmethod
    def from_json(form: Mapping[str, Any]) -> "SyntheticMap":
        """Read a map from its JSON value."""
        noted = tuple(NotedBin(**{**bin_form, "xy": tuple(bin_form["xy"])}) for bin_form in form["noted"])
        pool_xy, filtered_xy = (np.asarray(form[name]).reshape(-1, 2) for name in ("pool_xy", "filtered_xy"))
        return SyntheticMap(pool_xy, filtered_xy, noted)


def synthetic_map(
    pool: BinnedSet, filtered: BinnedSet, *, noisy_votes: Integers, centroids: Vectors, seed: int
) -> SyntheticMap:
    """Return the map of a pool and of the set that was filtered from it.

    Args:
      pool: the synthetic pool.
      filtered: the resampled set.
      noisy_votes: the released votes, shape (num_bins,).
      centroids: the bins, float32 (num_bins, d).
      seed: a public seed for the projection.
    """
    examples = _examples(pool, filtered, noisy_votes, centroids)
    subsets = [each.vectors[_every_kth(len(each.vectors))] for each in (pool, filtered)]
    marked = np.array([vector for _, _, vector in examples], dtype=np.float32).reshape(-1, centroids.shape[1])
    pool_xy, filtered_xy, examples_xy = _points([*subsets, marked], seed=seed)
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


def _points(sets: Sequence[Vectors], *, seed: int) -> list[Floats]:
    """Project several sets onto one map.

    - Equal vectors share a point, so a row of the filtered set is where it is in the pool.
    - Fewer than four different vectors are put on a line, because they have no neighborhoods to preserve.
    """
    from sklearn.manifold import TSNE

    stacked = np.concatenate(sets)
    different, inverse = np.unique(stacked, axis=0, return_inverse=True)
    if len(different) < 4:
        xy = np.stack([np.arange(len(different)), np.zeros(len(different))], axis=1)
    else:
        perplexity = min(LARGEST_PERPLEXITY, (len(different) - 1) / 3)
        init = "pca" if min(different.shape) > 1 else "random"
        xy = TSNE(2, init=init, perplexity=perplexity, random_state=seed).fit_transform(different)
    ends = np.cumsum([len(each) for each in sets])[:-1]
    return np.split(xy.astype(np.float64)[inverse.ravel()], ends)


def _examples(
    pool: BinnedSet, filtered: BinnedSet, noisy_votes: Integers, centroids: Vectors
) -> list[tuple[int, str, Vectors]]:
    """Return bin, typical text and its vector for the bins that changed most, the grown ones first.

    The text of a bin that grew is from the filtered set, that of a bin that shrank from the pool.
    """
    change = noisy_shares(noisy_votes) - bin_shares(pool.bin_ids, len(noisy_votes))
    grown = [int(bin_id) for bin_id in np.argsort(-change, kind="stable")[:NOTED_BINS] if change[bin_id] > 0]
    shrunk = [int(bin_id) for bin_id in np.argsort(change, kind="stable")[:NOTED_BINS] if change[bin_id] < 0]
    noted_bins = [*((filtered, bin_id) for bin_id in grown), *((pool, bin_id) for bin_id in shrunk)]
    rows = [(rows, bin_id, _typical(rows, bin_id, centroids[bin_id])) for rows, bin_id in noted_bins]
    return [(bin_id, binned.texts[row], binned.vectors[row]) for binned, bin_id, row in rows if row is not None]


def _typical(rows: BinnedSet, bin_id: int, center: Vectors) -> int | None:
    """Return the row of the bin that is nearest to its center; None in an empty bin."""
    members = np.flatnonzero(rows.bin_ids == bin_id)
    if not len(members):
        return None
    return int(members[np.linalg.norm(rows.vectors[members] - center, axis=1).argmin()])
