"""The three random acts of this project: who is in a batch, noise on a gradient sum, noise on votes.

All neighbours are add-or-remove-one unit. Each docstring states the sensitivity the caller must establish and the
event that the act then is. Probabilities and standard deviations are public constants; the number of units and the
sample are private.
"""

import numpy as np
import numpy.typing as npt

from dp_assets.privacy import randomness
from dp_assets.privacy.randomness import RandomSource


def poisson_sample(num_units: int, *, sampling_probability: float, source: RandomSource) -> npt.NDArray[np.int64]:
    """Indices of the sampled units, ascending; each unit is in with `sampling_probability`, independently.

    There is no cap, no shuffle and no second try: an empty sample is a valid one and must be used. Together with
    Gaussian noise on the sample's sum it is `PoissonSampledDpEvent(sampling_probability,
    GaussianDpEvent(noise_multiplier))`.

    Raises:
      ValueError: `sampling_probability` lies outside [0, 1].
    """
    return np.flatnonzero(randomness.bernoulli(source, num_units, sampling_probability)).astype(np.int64)


def gaussian_noise(size: int, *, noise_stddev: float, source: RandomSource) -> npt.NDArray[np.float64]:
    """`size` independent normal values of standard deviation `noise_stddev`, float64.

    Added to a sum that one unit moves by at most `l2_clip_norm` in L2 norm, with `noise_stddev = noise_multiplier *
    l2_clip_norm`, it is `GaussianDpEvent(noise_multiplier)`. One call serves one step, over all its tensors together:
    drawn once a micro-batch, the noise would grow with the size of the sample.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """
    if not 0 <= noise_stddev < np.inf:
        raise ValueError("noise_stddev must be finite and at least 0")
    return randomness.normals(source, size) * noise_stddev


def noisy_votes(
    exact_votes: npt.NDArray[np.int64], *, noise_stddev: float, source: RandomSource
) -> npt.NDArray[np.int64]:
    """Votes with exact discrete Gaussian noise on every bin, empty ones too; shape [num_bins], may be negative.

    One unit casts exactly one integer vote, so it moves one bin by one and no other: the release is
    `DiscreteGaussianDpEvent(noise_stddev)`. Noise on the filled bins only would tell which bins are empty.

    Raises:
      TypeError: the votes are not int64; exact noise needs integers.
      ValueError: `noise_stddev` is negative or not finite.
    """
    if exact_votes.dtype != np.int64:
        raise TypeError("exact_votes must be int64")
    return exact_votes + randomness.discrete_gaussian(source, len(exact_votes), noise_stddev)
