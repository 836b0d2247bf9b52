"""Bins and votes as arrays, in the order of the bin ids. A table has no order of its own."""

from dp_assets.arrays import Vectors
from dp_assets.artifacts import Table
from dp_assets.pipeline.release_protocol import EVIDENCE
from dp_assets.selection.histogram import NoisyHistogram


def centroids_of(synthetic_bins: Table) -> Vectors:
    """The centroids of the bins, float32 (num_bins, d)."""
    centroids: Vectors = synthetic_bins.collect().sort("bin_id")["centroid"].to_numpy()
    return centroids


def histogram_of(dp_histogram: Table) -> NoisyHistogram:
    """The noisy votes, and the noise that was drawn for them: 0 at the level `no-dp`."""
    votes = dp_histogram.collect().sort("bin_id")["noisy_votes"].to_numpy()
    return NoisyHistogram(votes, noise_stddev=float(dp_histogram.record[EVIDENCE]["noise_stddev"]))
