"""Allocation of the next samples of the top-up to strategies and bins, by the results of the earlier ones.

The method is Thompson sampling (Thompson 1933; Russo et al., "A Tutorial on Thompson Sampling", 2018). Every pair of a
steering strategy and a short bin has an unknown rate at which it gives a new row to its bin, with a Beta posterior. For
each sample a rate is drawn from every posterior, and the pair with the largest one is tried. So a pair is tried with
the probability that it is the best. A pair's prior is centered on its strategy's success rate over all bins and weighs
as much as `PRIOR_SAMPLES` samples, because a single bin gets few samples.

Unsteered samples need no trials. The pool was sampled without steering, so its rows and all later unsteered samples
show how many fall into the bins that are short now.

The objective is the most rows for the budget, and so the smallest total shortage, not equal success for all bins.
Within a round, no more samples are aimed at a bin when those aimed at it are expected to give what it lacks.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dp_assets.arrays import Integers
from dp_assets.selection.bins import NO_BIN
from dp_assets.selection.strategies import Strategy

PRIOR_SAMPLES = 4.0

Choice = tuple[Strategy, int]


class Tally:
    """Counts of the results of all samples so far.

    - `drawn`, `kept`: int64 (number of strategies, num_bins), steered samples by strategy and target bin.
    - `landed`: int64 (num_bins,), rows of the pool and new texts of unsteered samples, by the bin they fell into.
    - `num_unsteered`: rows of the pool and unsteered samples in total.
    """

    def __init__(self, strategies: Sequence[Strategy], landed: Integers) -> None:
        self.strategies = tuple(strategies)
        self.landed, self.num_unsteered = landed.copy(), int(landed.sum())
        self.drawn = np.zeros((len(self.strategies), len(landed)), dtype=np.int64)
        self.kept = np.zeros_like(self.drawn)

    def count(self, choice: Choice, *, bin_id: int, is_kept: bool) -> None:
        """Count one sample of `choice` that fell into `bin_id`; `is_kept` says whether it was kept as a row."""
        strategy, aim = choice
        if strategy is Strategy.UNSTEERED:
            self.num_unsteered += 1
            if bin_id != NO_BIN:
                self.landed[bin_id] += 1
            return
        row = self.strategies.index(strategy)
        self.drawn[row, aim] += 1
        self.kept[row, aim] += is_kept and bin_id == aim

    def posterior(self, bins: Integers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return both parameters of the Beta posteriors, each (number of strategies, number of `bins`)."""
        center = (self.kept.sum(axis=1) + 1) / (self.drawn.sum(axis=1) + 2)
        kept, drawn = self.kept[:, bins], self.drawn[:, bins]
        return PRIOR_SAMPLES * center[:, None] + kept, PRIOR_SAMPLES * (1 - center[:, None]) + drawn - kept


def allocate(
    size: int, tally: Tally, *, lacking: Integers, open_bins: Integers, generator: np.random.Generator
) -> list[Choice]:
    """Return the strategy and the target bin of each of the next `size` samples (`NO_BIN`: unsteered).

    Fewer than `size`, but at least one, if these are expected to give each open bin what it lacks.

    Args:
      size: the most samples of this round.
      tally: the results so far.
      lacking: rows that each bin lacks, int64 (num_bins,).
      open_bins: the bins to aim at, each of which lacks rows; at least one if there are strategies.
      generator: seeded with a public seed.
    """
    unsteered: Choice = (Strategy.UNSTEERED, NO_BIN)
    if not tally.strategies:
        return [unsteered] * size
    kept, failed = tally.posterior(open_bins)
    falls = tally.landed / max(1, tally.num_unsteered)
    unsteered_rate, expected = falls[lacking > 0].sum(), np.zeros(len(open_bins))
    choices = list[Choice]()
    while len(choices) < size and (expected < lacking[open_bins]).any():
        rates = np.where(expected < lacking[open_bins], generator.beta(kept, failed), -1)
        row, column = np.unravel_index(rates.argmax(), rates.shape)
        if rates[row, column] < unsteered_rate:
            choices.append(unsteered)
            expected += falls[open_bins]
        else:
            choices.append((tally.strategies[row], int(open_bins[column])))
            expected[column] += kept[row, column] / (kept[row, column] + failed[row, column])
    return choices
