"""Sources whose words are known, for tests only: production code has none that could be replayed."""

import hashlib

import numpy as np
import numpy.typing as npt


class ReplayableSource:
    """The k-th request yields a prefix of one endless stream, given by seed and k."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.requests = 0
        self.words = 0

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        self.requests += 1
        self.words += num_words
        stream = hashlib.shake_256(f"{self._seed}:{self.requests}".encode()).digest(8 * num_words)
        return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


class FixedWords:
    """Yields the given requests one after the other."""

    def __init__(self, *requests: list[int]) -> None:
        self._requests = list(requests)

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        words = np.array(self._requests.pop(0), dtype=np.uint64)
        assert len(words) == num_words
        return words
