"""Bins and votes as arrays, sorted by bin id, because the rows of a table have no order."""

from dp_assets.arrays import Vectors
from dp_assets.artifacts import Table
from dp_assets.pipeline.release_protocol import EVIDENCE
from dp_assets.selection.histogram import NoisyHistogram


def centroids_of(synthetic_bins: Table) -> Vectors:
    """Return the centroids of the bins, float32 (num_bins, d)."""
    centroids: Vectors = synthetic_bins.collect().sort("bin_id")["centroid"].to_numpy()
    return centroids


def histogram_of(dp_histogram: Table) -> NoisyHistogram:
    """Return the noisy votes and the standard deviation of their noise, which is 0 at the level `no-dp`."""
    votes = dp_histogram.collect().sort("bin_id")["noisy_votes"].to_numpy()
    return NoisyHistogram(votes, noise_stddev=float(dp_histogram.record[EVIDENCE]["noise_stddev"]))
