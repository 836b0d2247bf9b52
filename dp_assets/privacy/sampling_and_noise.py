"""The randomized operations: Poisson sampling, Gaussian noise, discrete Gaussian noise.

Each is an object that counts its own draws, so evidence states what was observed where the draw happened. `name_of`
names an object by its exact type: a subclass or a stand-in is named as foreign, and no claim rests on it.

All neighbors are add-or-remove-one unit. Each docstring states the sensitivity that the caller must establish and the
event that the operation then is. Probabilities and standard deviations are public constants. The number of units, the
sample and the noise are private. Digests of noise detect a repeated draw; no draw can be recomputed from them.
"""

import hashlib
import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dp_assets.privacy import randomness
from dp_assets.privacy.randomness import RandomSource

# Gradients are clipped to a norm this much, relative, below the clip norm, so that rounding stays within the
# sensitivity: rounding of the gradient's own norm, and of the other clipped gradients of a batch, which may round
# differently when a unit is added or removed.
ROUNDING_MARGIN = 1e-3
# Two equal draws, each less likely than exp(-60), are not a coincidence.
FEWEST_NATS = 60.0


def largest_rounding_slack(largest_batch: float) -> float:
    """Return the largest rounding error of one clipped gradient that may depend on the rest of the batch.

    A fraction of the clip norm, unitless. It is chosen so that a full batch of aligned errors stays within half of the
    margin. The other half is for rounding of the gradient's own norm.
    """
    return ROUNDING_MARGIN / (2 * max(largest_batch, 1.0))


Pick = tuple[str, int, int]  # a sampled unit, the index of its chosen row, and the number of its rows


class PoissonSampler:
    """Samples each unit with `sampling_probability`, independently of all other units and of earlier samples.

    The sample is not capped, shuffled or drawn again: an empty sample is valid and must be used. Together with Gaussian
    noise on the sample's sum, a sample is `PoissonSampledDpEvent(sampling_probability,
    GaussianDpEvent(noise_multiplier))`.

    Raises:
      ValueError: `sampling_probability` lies outside [0, 1].
    """

    __slots__ = ("_sampling_probability", "_source", "last_picks", "last_population", "last_sample", "samples_drawn")

    def __init__(self, *, sampling_probability: float, source: RandomSource) -> None:
        if not 0 <= sampling_probability <= 1:
            raise ValueError("sampling_probability must lie in [0, 1]")
        self._sampling_probability = sampling_probability
        self._source = source
        self.samples_drawn = 0
        self.last_population: tuple[str, ...] = ()
        self.last_sample: tuple[str, ...] = ()
        self.last_picks: tuple[Pick, ...] = ()

    @property
    def sampling_probability(self) -> float:
        """The probability of each unit in each sample. Read-only, so that it cannot differ for a single draw."""
        return self._sampling_probability

    @property
    def source(self) -> RandomSource:
        """The randomness of all samples. Read-only as well."""
        return self._source

    def draw(self, unit_ids: Sequence[str]) -> tuple[str, ...]:
        """Return the sampled units among `unit_ids`, in their order."""
        members = randomness.bernoulli(self.source, len(unit_ids), self.sampling_probability)
        self.samples_drawn += 1
        self.last_population = tuple(unit_ids)
        self.last_sample = tuple(unit_ids[index] for index in np.flatnonzero(members).tolist())
        self.last_picks = ()
        return self.last_sample

    def pick(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the index of one row for each unit of the last sample, drawn uniformly below the unit's size.

        `sizes` are the numbers of rows of these units, in their order. Call it once per sample: all picks are recorded.
        """
        draws = randomness.uniforms(self.source, len(sizes)).tolist()
        indices = tuple(int(draw * size) for draw, size in zip(draws, sizes, strict=True))
        self.last_picks += tuple(zip(self.last_sample, indices, sizes, strict=True))
        return indices


_draws_lock = threading.Lock()
_draws = 0


def noise_draws() -> int:
    """Return how often this process has drawn noise so far, in any object and any thread."""
    return _draws


def _count_draw() -> None:
    global _draws
    with _draws_lock:
        _draws += 1


class _Noise:
    """Noise of fixed parameters, which cannot differ for a single draw."""

    __slots__ = ("_noise_stddev", "_source", "coordinates_drawn", "digests")

    def __init__(self, *, noise_stddev: float, source: RandomSource) -> None:
        if not 0 <= noise_stddev < np.inf:
            raise ValueError("noise_stddev must be finite and at least 0")
        self._noise_stddev = noise_stddev
        self._source = source
        self.digests: list[str] = []
        self.coordinates_drawn = 0

    @property
    def noise_stddev(self) -> float:
        """The standard deviation of each value."""
        return self._noise_stddev

    @property
    def source(self) -> RandomSource:
        """The randomness of all draws."""
        return self._source


class GaussianNoise(_Noise):
    """Draws float64 vectors of independent normal values with standard deviation `noise_stddev`.

    Added to a sum that one unit moves by at most `l2_clip_norm` in L2 norm, with `noise_stddev = noise_multiplier *
    l2_clip_norm`, a draw is `GaussianDpEvent(noise_multiplier)`. One draw serves one step, over all its tensors
    together. With one draw per micro-batch, the noise would grow with the size of the sample.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """

    __slots__ = ("last_draw",)

    def __init__(self, *, noise_stddev: float, source: RandomSource) -> None:
        super().__init__(noise_stddev=noise_stddev, source=source)
        self.last_draw: npt.NDArray[np.float64] = np.zeros(0)

    def draw(self, size: int) -> npt.NDArray[np.float64]:
        """Return `size` fresh values, shape [size]."""
        _count_draw()
        standard = randomness.normals(self.source, size)
        # The digest is taken before scaling, because a run without noise draws fresh values in every step too.
        self.digests.append(hashlib.sha256(standard.tobytes()).hexdigest())
        self.coordinates_drawn += size
        self.last_draw = standard * self.noise_stddev
        return self.last_draw.copy()


class DiscreteGaussianNoise(_Noise):
    """Draws vectors of independent, exact discrete Gaussian integers.

    `digests` holds the digests of draws that two releases cannot have in common by chance. Unlike digests of float
    noise, they could be inverted by trying all likely draws. So whoever stores them hashes them with a key.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """

    __slots__ = ("last_draw",)

    def __init__(self, *, noise_stddev: float, source: RandomSource) -> None:
        super().__init__(noise_stddev=noise_stddev, source=source)
        self.last_draw: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def draw(self, size: int) -> npt.NDArray[np.int64]:
        """Return `size` fresh integers, shape [size]."""
        _count_draw()
        self.last_draw = randomness.discrete_gaussian(self.source, size, self.noise_stddev)
        self.coordinates_drawn += size
        if size * math.log(max(1.0, self.noise_stddev * math.sqrt(2 * math.pi))) >= FEWEST_NATS:
            self.digests.append(hashlib.sha256(self.last_draw.tobytes()).hexdigest())
        return self.last_draw.copy()


def noisy_votes(exact_votes: npt.NDArray[np.int64], noise: DiscreteGaussianNoise) -> npt.NDArray[np.int64]:
    """Return votes with noise on every bin, empty bins included; shape [num_bins], values may be negative.

    One unit casts at most one integer vote, so it changes one bin by one and no other bin: the release is
    `DiscreteGaussianDpEvent(noise_stddev)`. Noise on the non-empty bins alone would reveal which bins are empty.

    Raises:
      TypeError: the votes are not int64; exact noise needs integers.
    """
    if exact_votes.dtype != np.int64:
        raise TypeError("exact_votes must be int64")
    return exact_votes + noise.draw(len(exact_votes))


_NAMES: dict[type, str] = {
    PoissonSampler: "poisson",
    GaussianNoise: "gaussian",
    DiscreteGaussianNoise: "discrete-gaussian",
}


def name_of(part: object) -> str:
    """Return the name of a sampler or noise in evidence, or `foreign` and its class if it is of no known exact type."""
    return _NAMES.get(type(part), f"foreign {type(part).__name__}")
