"""Mechanism 2: each unit votes for its nearest bin, and every bin's votes get discrete Gaussian noise.

    sensitivity   one unit changes the exact votes of one bin by one: L2 sensitivity 1 under add-or-remove-one
    event         `plan.votes.event`: one discrete Gaussian release
    checks        `check_votes` compares what ran with the plan

The exact votes are a local value of one method and leave it only with noise added. Bins without a vote get noise too.
Separate code counts the votes again. The evidence holds the hash of the only table that may be released: the exact
votes with the recorded noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import EMBEDDER, OpenableCharge, PrivateTable, Table, content_digest
from dp_assets.privacy.claim import Discrepancy, check_votes
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import CountedVotes, Evidence, votes_evidence
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import HISTOGRAM, PrivacyPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, noise_draws, noisy_votes
from dp_assets.selection.bins import digest_of
from dp_assets.selection.recount import adds_up, are_own, is_everybody, recount
from dp_assets.selection.votes import exact_votes

NOT_RECORDED = "an embedder that was not recorded"


@dataclass(frozen=True)
class NoisyVotes:
    """The noisy histogram at one privacy level, over one private table of vectors.

    Args:
      plan: gives the constants of the mechanism.
      table: the private table of vectors.
      bins: the stored bins. Their charges belong to the lineage of the release too.
      centroids: those bins, float32 of shape (num_bins, d).
      bins_digest: `digest_of` the stored bins. `centroids` are compared with it after the votes were counted.
      embedder: the configured embedder.
      key: determines which row votes for a unit with several rows.
    """

    name: ClassVar[str] = HISTOGRAM

    plan: PrivacyPlan
    table: PrivateTable
    bins: Table
    centroids: npt.NDArray[np.float32]
    bins_digest: str
    embedder: str
    key: bytes = field(repr=False)

    def require_ready(self) -> None:
        """Raise an error if vectors and bins do not fit together: see `require_same_embedder`."""
        require_same_embedder(self.table, self.bins, self.embedder)

    def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
        """Return the noisy votes, one row for each bin, and the evidence of the release."""
        noise = DiscreteGaussianNoise(noise_stddev=self.plan.votes.noise_stddev, source=SystemRandomness())
        count = partial(exact_votes, centroids=self.centroids, key=self.key)
        are_apart = adds_up(count, self.centroids)
        drawn_before = noise_draws()
        opened = self.table.open(charge)
        ballots: list[tuple[str, int]] = []
        exact = count(opened.select("unit_id", "instruction_id", "vector"), ballots=ballots)
        released = noisy_votes(exact, noise)
        allowed = recount(self.table.as_stored(charge), self.centroids, key=self.key)
        counted = CountedVotes(
            exact,
            ballots,
            is_everybody=is_everybody(ballots, allowed),
            are_own=are_apart and are_own(ballots, allowed),
            are_stored_bins=digest_of(self.centroids) == self.bins_digest,
        )
        is_only_draw = noise_draws() - drawn_before == 1
        preparation = self.table.preparation
        evidence = votes_evidence(counted, released, noise, is_only_draw=is_only_draw, preparation=preparation)
        release = Table(_rows(released), tuple(self.bins.charge_ids))
        return release, replace(evidence, content=_observed(exact, noise))

    def check(self, evidence: Mapping[str, Any]) -> list[Discrepancy]:
        """Return every difference between a release of votes and the plan."""
        return check_votes(self.plan.votes, self.plan.unit, evidence)

    def can_resume(self, record: ChargeRecord) -> bool:
        """Always False: an interrupted count leaves nothing to continue from."""
        return False

    def describe(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return no figures besides the evidence."""
        return {}


class EmbeddersDiffer(PublicError, ValueError):
    """Bins and real vectors come from different embedders. The message has public values: models and vector lengths."""


def require_same_embedder(table: PrivateTable, bins: Table, embedder: str) -> None:
    """Check that real vectors and bins were made by the configured embedder, before anything is charged.

    Two embedders may give vectors of the same length. Votes of one for bins of the other would waste the budget.

    Raises:
      EmbeddersDiffer: the real vectors or the bins were made by another embedder, or by one that was not recorded, or
        they differ in length.
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


def _rows(noisy: npt.NDArray[np.int64]) -> pl.LazyFrame:
    return pl.LazyFrame({"bin_id": np.arange(len(noisy), dtype=np.int64), "noisy_votes": noisy})


def _observed(exact: npt.NDArray[np.int64], noise: DiscreteGaussianNoise) -> str:
    """Return the hash of the only table that may be released: the exact votes plus the recorded noise of each bin.

    Empty if the noise does not have the shape of the votes.
    """
    if exact.shape != noise.last_draw.shape:
        return ""
    table = pl.LazyFrame({"bin_id": range(len(exact)), "noisy_votes": exact + noise.last_draw})
    return content_digest(Table(table))
