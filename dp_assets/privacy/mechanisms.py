"""The three random acts of this project: who is in a batch, noise on a gradient sum, noise on votes.

Each is an object that counts what it does, so that evidence states what was observed where the act happened. What an
object calls itself follows from its exact type (`name_of`): a subclass or a stand-in is named as foreign, and no claim
rests on it.

All neighbours are add-or-remove-one unit. Each docstring states the sensitivity the caller must establish and the
event that the act then is. Probabilities and standard deviations are public constants; the number of units, the sample
and the noise are private. Digests of noise tell whether a draw came twice; nothing can be replayed from them.
"""

import hashlib
import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dp_assets.privacy import randomness
from dp_assets.privacy.randomness import RandomSource

# A clip aims this much, relative, below its norm, so that rounding lies inside the sensitivity: of the norm itself, and
# of the other shares of a batch, should they round differently when a unit comes or goes.
ROUNDING_MARGIN = 1e-3
# A draw that is less likely than exp(-60), whatever it is, does not come twice by chance.
FEWEST_NATS = 60.0


def largest_rounding_slack(largest_batch: float) -> float:
    """How much a share may round with the company it is in, so that a whole batch whose roundings align stays inside.

    Half the margin is for that, half for the norm itself. A part of the clip norm, unitless.
    """
    return ROUNDING_MARGIN / (2 * max(largest_batch, 1.0))


Pick = tuple[str, int, int]  # a sampled unit, the index of the row it gives, and how many rows it has


class PoissonSampler:
    """Draws each unit with `sampling_probability`, independently of all others and of earlier samples.

    There is no cap, no shuffle and no second try: an empty sample is a valid one and must be used. Together with
    Gaussian noise on the sample's sum, a sample is `PoissonSampledDpEvent(sampling_probability,
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
        """Of each unit, in each sample. Read-only, so that it cannot be another one for a single draw."""
        return self._sampling_probability

    @property
    def source(self) -> RandomSource:
        """Of the randomness of all samples. Read-only too."""
        return self._source

    def draw(self, unit_ids: Sequence[str]) -> tuple[str, ...]:
        """The sampled ones of `unit_ids`, in their order."""
        members = randomness.bernoulli(self.source, len(unit_ids), self.sampling_probability)
        self.samples_drawn += 1
        self.last_population = tuple(unit_ids)
        self.last_sample = tuple(unit_ids[index] for index in np.flatnonzero(members).tolist())
        self.last_picks = ()
        return self.last_sample

    def pick(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Which of its rows each unit of the last sample gives: an index below its size, drawn uniformly.

        `sizes` are the numbers of rows of these units, in their order. Once a sample: all picks are kept.
        """
        draws = randomness.uniforms(self.source, len(sizes)).tolist()
        indices = tuple(int(draw * size) for draw, size in zip(draws, sizes, strict=True))
        self.last_picks += tuple(zip(self.last_sample, indices, sizes, strict=True))
        return indices


_draws_lock = threading.Lock()
_draws = 0


def noise_draws() -> int:
    """How often this process has drawn noise so far, whichever object drew it and in whichever thread."""
    return _draws


def _count_draw() -> None:
    global _draws
    with _draws_lock:
        _draws += 1


class _Noise:
    """What noise is drawn with, fixed from the start: it cannot be something else for a single draw."""

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
        """Of each value."""
        return self._noise_stddev

    @property
    def source(self) -> RandomSource:
        """Of the randomness of all draws."""
        return self._source


class GaussianNoise(_Noise):
    """Draws vectors of independent normal values of standard deviation `noise_stddev`, float64.

    Added to a sum that one unit moves by at most `l2_clip_norm` in L2 norm, with `noise_stddev = noise_multiplier *
    l2_clip_norm`, a draw is `GaussianDpEvent(noise_multiplier)`. One draw serves one step, over all its tensors
    together: drawn once a micro-batch, the noise would grow with the size of the sample.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """

    __slots__ = ("last_draw",)

    def __init__(self, *, noise_stddev: float, source: RandomSource) -> None:
        super().__init__(noise_stddev=noise_stddev, source=source)
        self.last_draw: npt.NDArray[np.float64] = np.zeros(0)

    def draw(self, size: int) -> npt.NDArray[np.float64]:
        """`size` fresh values, shape [size]."""
        _count_draw()
        standard = randomness.normals(self.source, size)
        # Before they are scaled, since a run without noise draws anew in every step too.
        self.digests.append(hashlib.sha256(standard.tobytes()).hexdigest())
        self.coordinates_drawn += size
        self.last_draw = standard * self.noise_stddev
        return self.last_draw.copy()


class DiscreteGaussianNoise(_Noise):
    """Draws vectors of independent, exact discrete Gaussian integers.

    `digests` names the draws that two releases do not have in common by chance. Unlike those of float noise they could
    be turned back by trying, so whoever keeps them hashes them with a key.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """

    __slots__ = ("last_draw",)

    def __init__(self, *, noise_stddev: float, source: RandomSource) -> None:
        super().__init__(noise_stddev=noise_stddev, source=source)
        self.last_draw: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def draw(self, size: int) -> npt.NDArray[np.int64]:
        """`size` fresh integers, shape [size]."""
        _count_draw()
        self.last_draw = randomness.discrete_gaussian(self.source, size, self.noise_stddev)
        self.coordinates_drawn += size
        if size * math.log(max(1.0, self.noise_stddev * math.sqrt(2 * math.pi))) >= FEWEST_NATS:
            self.digests.append(hashlib.sha256(self.last_draw.tobytes()).hexdigest())
        return self.last_draw.copy()


def noisy_votes(exact_votes: npt.NDArray[np.int64], noise: DiscreteGaussianNoise) -> npt.NDArray[np.int64]:
    """Votes with noise on every bin, empty ones too; shape [num_bins], may be negative.

    One unit casts at most one integer vote, so it moves one bin by one and no other: the release is
    `DiscreteGaussianDpEvent(noise_stddev)`. Noise on the filled bins only would tell which bins are empty.

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
    """What a sampler or noise is called in evidence: its name if it is exactly one of these, else its class."""
    return _NAMES.get(type(part), f"foreign {type(part).__name__}")
