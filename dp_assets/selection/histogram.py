"""The noisy histogram as a value: the released votes and the noise that they carry."""

from dataclasses import dataclass

from dp_assets.arrays import Integers


@dataclass(frozen=True)
class NoisyHistogram:
    """`votes` (num_bins,) as released, and the standard deviation of the noise on each, in votes. Both are public."""

    votes: Integers
    noise_stddev: float
