"""The paper's own rule, which benchmarks compare with the product's."""

import numpy as np

from dp_assets.arrays import Integers


def paper_quotas(noisy_votes: Integers, pool_counts: Integers, *, num_units: int, target_size: int) -> Integers:
    """Rows to take from each bin, int64 (num_bins,), by the paper's rule: min(floor(T max(0, v / N)), rows in the bin).

    N, `num_units`, is a public constant there (180,000). In ours the number of units is private, and `quotas` divides
    by the sum of the noisy votes instead. The sum of the result is not T in general.
    """
    wanted: Integers = target_size * noisy_votes.clip(min=0) // num_units
    return np.minimum(wanted, pool_counts)
