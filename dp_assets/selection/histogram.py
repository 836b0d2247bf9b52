"""The noisy histogram as a value: the released votes and the standard deviation of their noise."""

from dataclasses import dataclass

from dp_assets.arrays import Integers


@dataclass(frozen=True)
class NoisyHistogram:
    """The released `votes`, int64 (num_bins,), and the standard deviation of the noise on each, in votes. Public."""

    votes: Integers
    noise_stddev: float
