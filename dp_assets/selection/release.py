"""The second mechanism: one vote a unit for its nearest bin, and discrete Gaussian noise on every bin.

One unit changes one bin's exact votes by one, so the L2 sensitivity is 1 under add-or-remove-one. The exact votes are a
local value of one function and leave it only with noise on them; bins without a vote get noise too. They are counted
again by other code, and what may be released is what was watched.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import EMBEDDER, OpenableCharge, PrivateTable, Table, content_digest
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import Evidence, votes_evidence
from dp_assets.privacy.mechanisms import DiscreteGaussianNoise, noise_draws, noisy_votes
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.selection.bins import digest_of
from dp_assets.selection.recount import adds_up, are_own, is_everybody, recount
from dp_assets.selection.votes import exact_votes

NOT_RECORDED = "an embedder that was not recorded"


class EmbeddersDiffer(PublicError, ValueError):
    """Bins and real vectors come from different embedders. Names models and lengths of vectors, which are public."""


def require_same_embedder(table: PrivateTable, bins: Table, embedder: str) -> None:
    """Find vectors or bins of another embedder than the configured one before anything is charged.

    Two embedders may give vectors of one length, and votes of one for bins of the other would be bought for nothing.

    Raises:
      EmbeddersDiffer: the real vectors or the bins were made by another embedder, by one that was not recorded, or
        differ in length.
    """
    real, synthetic = table.made_with.get(EMBEDDER, NOT_RECORDED), bins.record.get(EMBEDDER, NOT_RECORDED)
    centroids = bins.rows.collect_schema()["centroid"]
    lengths = table.width("vector"), centroids.size if isinstance(centroids, pl.Array) else None
    if {real, synthetic} != {embedder} or lengths[0] != lengths[1]:
        raise EmbeddersDiffer(
            f"the real vectors are of {real} ({lengths[0]} numbers each), the bins of {synthetic} ({lengths[1]}), and"
            f" `embedder` is {embedder}; set it to the one you want, and materialize real_embeddings,"
            " synthetic_embeddings and synthetic_bins again"
        )


def release_votes(
    charge: OpenableCharge,
    *,
    table: PrivateTable,
    centroids: npt.NDArray[np.float32],
    bins: str,
    noise_stddev: float,
    key: bytes,
    upstream_ids: Sequence[str],
) -> tuple[Table, Evidence]:
    """The noisy votes for `centroids` (float32, shape (num_bins, d)), one row a bin, with the evidence of the release.

    `bins` is the digest of the stored bins (`digest_of`), with which those that were voted on are compared once the
    votes were counted. `upstream_ids` are the charges behind the bins; `key` selects the row that votes for a unit
    with several rows.
    """
    noise = DiscreteGaussianNoise(noise_stddev=noise_stddev, source=SystemRandomness())
    count = partial(exact_votes, centroids=centroids, key=key)
    are_apart = adds_up(count, centroids)
    drawn_before = noise_draws()
    opened = table.open(charge)
    ballots: list[tuple[str, int]] = []
    exact = count(opened.select("unit_id", "instruction_id", "vector"), ballots=ballots)
    released = noisy_votes(exact, noise)
    allowed = recount(table.as_stored(charge), centroids, key=key)
    evidence = votes_evidence(
        exact_votes=exact,
        released=released,
        ballots=ballots,
        is_everybody=is_everybody(ballots, allowed),
        are_own=are_apart and are_own(ballots, allowed),
        are_stored_bins=digest_of(centroids) == bins,
        noise=noise,
        is_only_draw=noise_draws() - drawn_before == 1,
        preparation=table.preparation,
    )
    return Table(_rows(released), tuple(upstream_ids)), replace(evidence, content=_observed(exact, noise))


def _rows(noisy: npt.NDArray[np.int64]) -> pl.LazyFrame:
    return pl.LazyFrame({"bin_id": np.arange(len(noisy), dtype=np.int64), "noisy_votes": noisy})


def _observed(exact: npt.NDArray[np.int64], noise: DiscreteGaussianNoise) -> str:
    """The hash of the one table that may be released: the exact votes with the noise drawn for them, bin by bin."""
    if exact.shape != noise.last_draw.shape:
        return ""
    table = pl.LazyFrame({"bin_id": range(len(exact)), "noisy_votes": exact + noise.last_draw})
    return content_digest(Table(table))
