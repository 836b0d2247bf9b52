"""Sources whose words are known, for tests only: production code has none that could be replayed."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from dp_assets.privacy.randomness import bernoulli

ALWAYS = 0  # the word at which a coin of any probability above zero falls true


class ReplayableSource:
    """The k-th request yields a prefix of one endless stream, given by seed and k."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.requests = 0
        self.words = 0

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        self.requests += 1
        self.words += num_words
        return _stream(f"{self._seed}:{self.requests}", num_words)


class FixedWords:
    """Yields the given requests one after the other."""

    def __init__(self, *requests: list[int]) -> None:
        self._requests = list(requests)

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        words = np.array(self._requests.pop(0), dtype=np.uint64)
        assert len(words) == num_words
        return words


class WordsByUnit:
    """The words of DP-SGD, dealt to units by their names instead of by their places.

    A Poisson sample takes one word a unit, in the order of the units, so one more unit shifts the words of all that
    follow it. The proof of the guarantee pairs up runs in which everybody else draws the same; so does this source. It
    knows the acts of a step and the number of requests that each makes:

        sample   one word a unit: the unit's own, given by seed, step and unit id
        rows     one word a sampled unit: again its own
        noise    three requests: the same in every corpus, given by seed and step

    `always` are units that every sample shall hold. The log holds the number of words of each request, step by step.
    """

    requests = 5  # of a step

    def __init__(
        self, seed: int, unit_ids: Sequence[str], *, sampling_probability: float, always: Collection[str] = ()
    ) -> None:
        self.log: list[int] = []
        self._seed, self._unit_ids, self._always = seed, list(unit_ids), frozenset(always)
        self._sampling_probability = sampling_probability
        self._sampled: list[str] = []

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        step, act = divmod(len(self.log), self.requests)
        self.log.append(num_words)
        if act == 0:
            words = self._membership(step)
        elif act == 1:
            words = self._own_words(f"{step}:row", self._sampled)
        else:
            words = _stream(f"{self._seed}:{step}:noise:{act}", num_words)
        assert len(words) == num_words, "the acts of a step or their requests have changed; change this source"
        return words

    def _membership(self, step: int) -> npt.NDArray[np.uint64]:
        words = self._own_words(f"{step}:sample", self._unit_ids)
        words[[unit_id in self._always for unit_id in self._unit_ids]] = ALWAYS
        is_in = bernoulli(FixedWords(words.tolist()), len(words), self._sampling_probability)
        self._sampled = [unit_id for unit_id, drawn in zip(self._unit_ids, is_in, strict=True) if drawn]
        return words

    def _own_words(self, act: str, unit_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
        words = [_stream(f"{self._seed}:{act}:{unit_id}", 1) for unit_id in unit_ids]
        return np.concatenate([np.empty(0, dtype=np.uint64), *words])


def _stream(name: str, num_words: int) -> npt.NDArray[np.uint64]:
    stream = hashlib.shake_256(name.encode()).digest(8 * num_words)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)
