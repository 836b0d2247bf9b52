"""Fewer, larger bins made of the bins that the votes were cast on.

A sum of noisy votes is post-processing, and its noise grows with the root of the number of bins while its votes grow
with the number itself: a coarser look sees less through less noise. Bins are joined by Ward's method on their
centroids, which are released.
"""

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage


def coarse_bins(centroids: npt.NDArray[np.float32], *, num_groups: int) -> npt.NDArray[np.int64]:
    """The coarse bin, from 0, of each of the centroids (num_bins, d), int64 (num_bins,).

    There are `num_groups` of them, or as many as there are bins where those are fewer.
    """
    if len(centroids) <= num_groups:
        return np.arange(len(centroids), dtype=np.int64)
    tree = linkage(centroids.astype(np.float64), method="ward")
    groups: npt.NDArray[np.int64] = fcluster(tree, num_groups, criterion="maxclust").astype(np.int64) - 1
    return groups
