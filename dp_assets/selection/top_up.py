"""Top-up: more samples from the generator for the bins whose rows do not meet their quotas.

The loop runs in rounds, within a public budget of samples.

1. Attempts are allocated to short bins and strategies by the results of earlier attempts (`allocation.py`).
2. Examples of the short bin are put into the generator's prompt (`strategies.py`). A bin without any row uses those of
   the nearest bin that has some.
3. A text is kept if it falls into a bin that still lacks rows and is no copy (`near_copies.py`). Kept rows are examples
   from then on.

A bin is given up after `PATIENCE` consecutive samples aimed at it without a new row, so that a bin that the generator
cannot reach does not use up the budget. Its remaining shortage is reported. It is taken up again if a sample aimed
elsewhere falls into it and is kept. The loop ends when no bin is short, all short bins were given up, or the budget is
used up.

Privacy. Everything that is read here was released or is public: the pool and the generator (mechanism 1 and its
post-processing), the centroids (fitted on the pool), the quotas (from the noisy votes of mechanism 2), the embedder,
the budget and the seed. No count, vector or text of a real unit is read, and the number of samples for a bin depends on
released values only. So the loop is post-processing of paid releases: it costs no privacy, may be repeated, and its
figures may be published. Steering makes rows more similar to rows of the pool, never to a real row.

Left out: training the generator again on the kept rows, and choosing examples by their distance to the bin's border.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.arrays import Integers
from dp_assets.selection.allocation import Tally, allocate
from dp_assets.selection.bins import NO_BIN, nearest_bin
from dp_assets.selection.near_copies import Runs, hash_of_words, is_near_copy, runs_of
from dp_assets.selection.resample import rows_in_bins
from dp_assets.selection.strategies import STEERED, Attempt, Strategy, attempt
from dp_assets.vocabulary import Steering

Draw = Callable[[Sequence[Steering], int], list[str]]
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

ORIGINS = {strategy: "steered" if strategy in STEERED else "top_up" for strategy in Strategy}
COLUMNS = pl.Schema({"synthetic_id": pl.String(), "text": pl.String(), "bin_id": pl.Int64(), "origin": pl.String()})

ROUNDS = 16
"""The number of rounds that the budget is divided into, if each then has `SMALLEST_ROUND` samples."""
SMALLEST_ROUND = 32
"""The smallest number of samples in a round. Smaller ones would leave most of a batch of the generator empty."""
PATIENCE = 64
"""The number of samples without success after which a bin is given up. A bin that one sample in 14 reaches is given
up wrongly with probability below 1%."""


@dataclass(frozen=True)
class TopUp:
    """The new rows, and counts of the samples behind them.

    - `rows`: `synthetic_id` (from topup-000001), `text`, `bin_id` and `origin` ("top_up" or "steered").
    - `drawn`, `kept`: samples by strategy.
    - `copies`: samples that were dropped because they repeat another text.
    - `given_up`: ids of the bins that are short and were given up, int64.
    """

    rows: pl.DataFrame
    drawn: Mapping[Strategy, int]
    kept: Mapping[Strategy, int]
    copies: int
    given_up: Integers

    @property
    def num_drawn(self) -> int:
        """Return the number of samples drawn."""
        return sum(self.drawn.values())


def top_up(
    pool: pl.DataFrame,
    *,
    shortage: Integers,
    draw: Draw,
    embed: Embed,
    centroids: npt.NDArray[np.float32],
    max_samples: int,
    steered: bool,
    seed: int,
) -> TopUp:
    """Sample until no bin is short, all short bins were given up, or `max_samples` were drawn.

    Args:
      pool: `text` and `bin_id` of the existing rows, in a reproducible order.
      shortage: rows that each bin lacks, int64 (num_bins,).
      draw: maps steerings and a public seed to one text for each steering, in order, possibly empty.
      embed: maps texts to vectors, float32 (number of texts, d), in the space of the centroids.
      centroids: float32 (num_bins, d).
      max_samples: the public budget of samples.
      steered: whether to aim at short bins. If not, or if the pool has no row as an example, samples are drawn as the
        pool was, and no bin is given up.
      seed: public; every round gets a seed of its own, unrelated to small seeds used elsewhere.

    Raises:
      ValueError: `draw` returned another number of texts than steerings.
    """
    loop = _Loop(pool, shortage, centroids, strategies=STEERED if steered and pool.height else ())
    round_size = max(SMALLEST_ROUND, -(-max_samples // ROUNDS))
    while (left := max_samples - loop.num_drawn) > 0 and loop.has_work():
        generator = np.random.default_rng(np.random.SeedSequence((seed, loop.num_drawn)))
        attempts = loop.attempts(min(round_size, left), generator)
        # A fresh seed: the pool may have been sampled with the same small seed, and would only be repeated.
        texts = draw([one.steering for one in attempts], int(generator.integers(2**32)))
        loop.take(attempts, texts, embed)
    return loop.result()


class _Loop:
    """The state of the loop: kept rows, shortages, and the results of attempts."""

    def __init__(
        self,
        pool: pl.DataFrame,
        shortage: Integers,
        centroids: npt.NDArray[np.float32],
        *,
        strategies: Sequence[Strategy],
    ) -> None:
        binned = pool.filter(pl.col("bin_id") != NO_BIN)
        self._lacking, self._centroids = shortage.copy(), centroids
        self._pool, self._num_rows = binned, rows_in_bins(binned, num_bins=len(shortage))
        self._texts: dict[int, list[str]] = {}
        self._tally = Tally(strategies, self._num_rows)
        self._seen = set(map(hash_of_words, pool["text"]))
        self._runs_kept: dict[int, list[Runs]] = {}
        self._in_vain = np.zeros(len(shortage), dtype=np.int64)
        self._drawn, self._kept = (dict.fromkeys((Strategy.UNSTEERED, *strategies), 0) for _ in range(2))
        self._copies = 0
        self._rows = list[tuple[str, str, int, str]]()

    @property
    def num_drawn(self) -> int:
        return sum(self._drawn.values())

    def has_work(self) -> bool:
        """Whether any short bin was not given up."""
        return bool(self._open_bins().size)

    def attempts(self, size: int, generator: np.random.Generator) -> list[Attempt]:
        """Return the next attempts, at most `size`."""
        open_bins = self._open_bins()
        choices = allocate(size, self._tally, lacking=self._lacking, open_bins=open_bins, generator=generator)
        return [
            attempt(strategy, aim, self._examples_of(aim) if aim != NO_BIN else (), generator=generator)
            for strategy, aim in choices
        ]

    def take(self, attempts: Sequence[Attempt], texts: Sequence[str], embed: Embed) -> None:
        """Keep the texts that short bins need, and count the results of all attempts."""
        usable = [self._is_new(one, text) for one, text in zip(attempts, texts, strict=True)]
        bins = iter(_bins([text for text, good in zip(texts, usable, strict=True) if good], embed, self._centroids))
        for one, text, good in zip(attempts, texts, usable, strict=True):
            bin_id = next(bins) if good else NO_BIN
            is_kept = bin_id != NO_BIN and bool(self._lacking[bin_id] > 0) and self._differs_from_kept(text, bin_id)
            self._count(one, bin_id, is_kept=is_kept)
            if is_kept:
                self._keep(one, text, bin_id)

    def result(self) -> TopUp:
        """Return the kept rows and the counts."""
        rows = pl.DataFrame(self._rows, schema=COLUMNS, orient="row")
        given_up = np.flatnonzero((self._lacking > 0) & (self._in_vain >= PATIENCE))
        return TopUp(rows, self._drawn, self._kept, self._copies, given_up)

    def _open_bins(self) -> Integers:
        return np.flatnonzero((self._lacking > 0) & (self._in_vain < PATIENCE))

    def _examples_of(self, bin_id: int) -> list[str]:
        """Return the texts of a bin, or those of the nearest bin with rows if it has none."""
        if self._num_rows[bin_id]:
            return self._texts_in(bin_id)
        distances = np.square(self._centroids - self._centroids[bin_id]).sum(axis=1)
        return self._texts_in(int(np.where(self._num_rows > 0, distances, np.inf).argmin()))

    def _texts_in(self, bin_id: int) -> list[str]:
        """Return the texts of a bin, read from the pool at the first call: most bins are never short."""
        if bin_id not in self._texts:
            self._texts[bin_id] = self._pool.filter(bin_id=bin_id)["text"].to_list()
        return self._texts[bin_id]

    def _is_new(self, one: Attempt, text: str) -> bool:
        """Whether a text is not empty and repeats neither an earlier text nor an example of its prompt.

        Records the text as seen.
        """
        mark = hash_of_words(text)
        is_copy = mark in self._seen or is_near_copy(runs_of(text), map(runs_of, one.shown))
        self._seen.add(mark)
        self._copies += bool(text) and is_copy
        return bool(text) and not is_copy

    def _differs_from_kept(self, text: str, bin_id: int) -> bool:
        """Whether a text is no near copy of a new row of its bin. Rows of one bin may have had the same opening."""
        is_copy = is_near_copy(runs_of(text), self._runs_kept.get(bin_id, ()))
        self._copies += is_copy
        return not is_copy

    def _count(self, one: Attempt, bin_id: int, *, is_kept: bool) -> None:
        self._drawn[one.strategy] += 1
        self._kept[one.strategy] += is_kept
        self._tally.count((one.strategy, one.bin_id), bin_id=bin_id, is_kept=is_kept)
        if one.bin_id != NO_BIN:
            self._in_vain[one.bin_id] += 1

    def _keep(self, one: Attempt, text: str, bin_id: int) -> None:
        self._lacking[bin_id] -= 1
        self._in_vain[bin_id] = 0
        self._num_rows[bin_id] += 1
        self._texts_in(bin_id).append(text)
        self._runs_kept.setdefault(bin_id, []).append(runs_of(text))
        self._rows.append((f"topup-{len(self._rows) + 1:06d}", text, bin_id, ORIGINS[one.strategy]))


def _bins(texts: Sequence[str], embed: Embed, centroids: npt.NDArray[np.float32]) -> list[int]:
    return nearest_bin(embed(texts), centroids).tolist() if texts else []
