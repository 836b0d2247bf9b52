"""Bins and votes as arrays, in the order of the bin ids. A table has no order of its own."""

import numpy as np
import numpy.typing as npt

from dp_assets.artifacts import Table
from dp_assets.pipeline.release_protocol import EVIDENCE


def centroids_of(synthetic_bins: Table) -> npt.NDArray[np.float32]:
    """The centroids of the bins, float32 (num_bins, d)."""
    centroids: npt.NDArray[np.float32] = synthetic_bins.collect().sort("bin_id")["centroid"].to_numpy()
    return centroids


def votes_of(dp_histogram: Table) -> npt.NDArray[np.int64]:
    """The noisy votes of the bins, int64 (num_bins,)."""
    votes: npt.NDArray[np.int64] = dp_histogram.collect().sort("bin_id")["noisy_votes"].to_numpy()
    return votes


def noise_of(dp_histogram: Table) -> float:
    """The standard deviation of the noise that was drawn for the votes, in votes; 0 at the level `no-dp`."""
    return float(dp_histogram.record[EVIDENCE]["noise_stddev"])
