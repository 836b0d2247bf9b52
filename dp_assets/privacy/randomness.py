"""Randomness of the mechanisms: operating-system entropy, and the samplers built on it.

Guarantee: every draw of a mechanism is a function of words from a `RandomSource`, which is a keyword argument without a
default. The only source in production reads the operating system's generator. So there is no seed that could leak, no
state that could be stored or copied by a fork, and no library seed (`torch.manual_seed`, `np.random.seed`) that could
make noise repeat. Public steps, such as pool sampling or the initial adapter, take public seeds elsewhere.

Two kinds of noise:

    discrete_gaussian   exact: integer arithmetic throughout, for votes
    normals             float64: Box-Muller on uniforms of 53 and 106 bits, for gradients

Not covered:

- The float64 normals are not exact. Their finite grid could in principle tell a floating-point attack something about
  the sum (Mironov 2012; arXiv 2112.05307). The statement lists this as not covered.
- The running time of a rejection sampler.
"""

import math
import os
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

FLOAT_BITS = 53  # the precision of float64
WORD_BITS = 64


class RandomSource(Protocol):
    """Independent uniform 64-bit words. The samplers in this module assume nothing else."""

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        """Return `num_words` fresh words, shape [num_words]."""
        ...


class SystemRandomness:
    """The operating system's cryptographic generator: no seed, no state, safe on both sides of a fork."""

    __slots__ = ()

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        """Return `num_words` fresh words, shape [num_words]."""
        return np.frombuffer(os.urandom(8 * num_words), dtype=np.uint64)

    def __repr__(self) -> str:
        return "SystemRandomness()"


def origin(source: RandomSource) -> str:
    """Name the origin of the words: `operating-system`, or the class name of a source that no claim may rest on."""
    return "operating-system" if type(source) is SystemRandomness else type(source).__name__


def uniforms(source: RandomSource, n: int) -> npt.NDArray[np.float64]:
    """Return `n` uniform multiples of 2^-53 in [0, 1), shape [n]."""
    return _float_integers(source, n).astype(np.float64) * 2.0**-FLOAT_BITS


def bernoulli(source: RandomSource, n: int, probability: float) -> npt.NDArray[np.bool_]:
    """Return `n` independent coins, shape [n], each true with `probability` rounded down to a multiple of 2^-53.

    Rounding down keeps the real sampling probability at or below the accounted one.

    Raises:
      ValueError: `probability` lies outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError("probability must lie in [0, 1]")
    return _float_integers(source, n) < np.uint64(math.floor(probability * 2.0**FLOAT_BITS))


def normals(source: RandomSource, n: int) -> npt.NDArray[np.float64]:
    """Return `n` standard normal values, shape [n], by Box-Muller.

    The radius comes from a uniform of 106 bits in (0, 1], so the tail reaches 12 standard deviations. With 53 bits the
    tail would end at 8.6 standard deviations, and a long run with millions of coordinates would have to add that to its
    delta.
    """
    pairs = (n + 1) // 2
    radius = np.sqrt(-2.0 * np.log(_positive_uniforms(source, pairs)))
    angle = 2.0 * np.pi * uniforms(source, pairs)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


def discrete_gaussian(source: RandomSource, n: int, noise_stddev: float) -> npt.NDArray[np.int64]:
    """Return `n` exact draws, shape [n], of integers x with P(x) proportional to exp(-x^2 / (2 noise_stddev^2)).

    Implements Algorithms 1 to 3 of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (arXiv
    2004.00010), on exact rationals. `noise_stddev` is taken as the exact fraction that the float stands for. A standard
    deviation of zero gives zeros.

    Raises:
      ValueError: `noise_stddev` is negative or not finite.
    """
    if not 0 <= noise_stddev < math.inf:
        raise ValueError("noise_stddev must be finite and at least 0")
    if noise_stddev == 0:
        return np.zeros(n, dtype=np.int64)
    coins, variance = _ExactCoins(source), Fraction(noise_stddev) ** 2
    laplace_scale = math.floor(noise_stddev) + 1
    draws = [_discrete_gaussian(coins, variance, laplace_scale) for _ in range(n)]
    return np.array(draws, dtype=np.int64)


def _float_integers(source: RandomSource, n: int) -> npt.NDArray[np.uint64]:
    """Return `n` uniform integers below 2^53, which float64 represents exactly."""
    return source.bits(n) >> np.uint64(WORD_BITS - FLOAT_BITS)


def _positive_uniforms(source: RandomSource, n: int) -> npt.NDArray[np.float64]:
    """Return `n` uniforms in (0, 1] with 106 random bits: a coarse uniform, and a fine one that subdivides its grid."""
    coarse, fine = uniforms(source, n), 1.0 - uniforms(source, n)
    return coarse + fine * 2.0**-FLOAT_BITS


class _ExactCoins:
    """Exact coin flips: with rational probability, and with probability exp(-rational)."""

    WORDS_AT_ONCE = 256

    def __init__(self, source: RandomSource) -> None:
        self._source = source
        self._words: list[int] = []

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound), by rejection sampling over the next power of two."""
        num_bits = (bound - 1).bit_length()
        while (candidate := self._integer(num_bits)) >= bound:
            pass
        return candidate

    def biased(self, probability: Fraction) -> bool:
        """Return true with a rational probability in [0, 1]."""
        return self.below(probability.denominator) < probability.numerator

    def exponential(self, exponent: Fraction) -> bool:
        """Return true with probability exp(-exponent), for a rational exponent of at least 0 (Algorithm 1)."""
        whole = exponent.numerator // exponent.denominator
        return all(self._series(Fraction(1)) for _ in range(whole)) and self._series(exponent - whole)

    def _series(self, exponent: Fraction) -> bool:
        """Return true with probability exp(-exponent), for an exponent in [0, 1], by its alternating series."""
        terms = 1
        while self.biased(exponent / terms):
            terms += 1
        return terms % 2 == 1

    def _integer(self, num_bits: int) -> int:
        num_words = -(-num_bits // WORD_BITS)
        value = 0
        for _ in range(num_words):
            value = value << WORD_BITS | self._word()
        return value >> (num_words * WORD_BITS - num_bits)

    def _word(self) -> int:
        if not self._words:
            self._words = self._source.bits(self.WORDS_AT_ONCE).tolist()
        return self._words.pop()


def _discrete_laplace(coins: _ExactCoins, scale: int) -> int:
    """Draw x with P(x) proportional to exp(-|x| / scale) on the integers (Algorithm 2 with an integer scale)."""
    while True:
        remainder = coins.below(scale)
        if not coins.exponential(Fraction(remainder, scale)):
            continue
        quotient = 0
        while coins.exponential(Fraction(1)):
            quotient += 1
        magnitude, negative = remainder + scale * quotient, coins.below(2) == 1
        if not (negative and magnitude == 0):  # otherwise zero would be twice as likely
            return -magnitude if negative else magnitude


def _discrete_gaussian(coins: _ExactCoins, variance: Fraction, laplace_scale: int) -> int:
    """Draw from the discrete Gaussian by rejection sampling from the discrete Laplace distribution (Algorithm 3)."""
    while True:
        candidate = _discrete_laplace(coins, laplace_scale)
        if coins.exponential((abs(candidate) - variance / laplace_scale) ** 2 / (2 * variance)):
            return candidate
