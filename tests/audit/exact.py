"""What (epsilon, delta)-DP allows, by means that share nothing with the code: linear programs and enumeration.

Let p_j be the probability of exactly j right among r guesses about m coins. Choose a canary at random and flip its
coin: a right guess becomes wrong, the others stay. So for every set A of numbers of right guesses

    sum over j in A of j p_j  <=  e^epsilon  (sum over j in A of (r - j + 1) p_{j-1})  +  m delta.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from dp_assets.arrays import Floats
from dp_assets.audit.one_run import GuessCounts
from dp_assets.audit.trade_off import TradeOffCurve


def largest_probability(counts: GuessCounts, *, epsilon: float, delta: float) -> float:
    """The largest probability of at least so many right guesses, if all sets A are considered.

    The worst set holds the j whose left side is larger, so what exceeds at each j is a variable of its own.
    """
    guesses = counts.guesses
    right = np.arange(1, guesses + 1)
    rows, sums = np.zeros((guesses, 2 * guesses + 1)), np.zeros((1, 2 * guesses + 1))
    rows[right - 1, right] = right
    rows[right - 1, right - 1] = -math.exp(epsilon) * (guesses - right + 1)
    rows[right - 1, guesses + right] = -1
    sums[0, guesses + 1 :] = 1
    return _largest_tail(
        np.vstack([rows, sums]), np.append(np.zeros(guesses), counts.canaries * delta), counts, 2 * guesses + 1
    )


def largest_probability_by_tails(counts: GuessCounts, curve: TradeOffCurve) -> float:
    """The largest probability of at least so many right guesses, if only sets A = {j, ..., r} are considered."""
    guesses, canaries = counts.guesses, counts.canaries
    rows, limits = [], []
    for least in range(1, guesses + 1):
        right = np.where(np.arange(guesses + 1) >= least, np.arange(guesses + 1), 0) / canaries
        wrong = np.where(np.arange(guesses + 1) >= least - 1, guesses - np.arange(guesses + 1), 0) / canaries
        for epsilon, delta in zip(curve.epsilons, curve.deltas, strict=True):
            rows += [right - math.exp(epsilon) * wrong, right * math.exp(epsilon) - wrong]
            limits += [delta, math.exp(epsilon) - 1 + delta]
    return _largest_tail(np.array(rows), np.array(limits), counts, guesses + 1)


def _largest_tail(rows: Floats, limits: Floats, counts: GuessCounts, variables: int) -> float:
    tail, total = np.zeros(variables), np.zeros((1, variables))
    tail[counts.correct : counts.guesses + 1] = -1
    total[0, : counts.guesses + 1] = 1
    solution = linprog(tail, A_ub=rows, b_ub=limits, A_eq=total, b_eq=[1.0], method="highs")
    assert solution.status == 0, solution.message
    return -float(solution.fun)


@dataclass(frozen=True)
class SmallMechanism:
    """Probabilities of each output (columns) for each of the 2^m values of the coins (rows), and the best guesses."""

    canaries: int
    outputs: Floats

    def deltas(self, epsilons: Floats) -> Floats:
        """The exact delta at each epsilon: the largest over all pairs of coins that differ in one canary."""
        pairs = [(row, row ^ (1 << canary)) for row in range(2**self.canaries) for canary in range(self.canaries)]
        excess = [
            np.maximum(self.outputs[one] - np.exp(epsilons)[:, None] * self.outputs[other], 0).sum(axis=1)
            for one, other in pairs
        ]
        return np.asarray(np.clip(np.max(excess, axis=0), 0.0, 1.0))

    def tail(self, guesses: int) -> Floats:
        """The probability of at least 0, 1, ..., `guesses` right, where each output's surest coins are guessed."""
        coins = np.array(list(itertools.product([0, 1], repeat=self.canaries)))[:, ::-1]
        posterior = self.outputs.T @ coins / self.outputs.sum(axis=0)[:, None]
        exactly = np.zeros(guesses + 1)
        for output, chances in enumerate(posterior):
            guessed = np.argsort(-np.abs(chances - 0.5))[:guesses]
            right = (coins[:, guessed] == (chances[guessed] > 0.5)).sum(axis=1)
            np.add.at(exactly, right, self.outputs[:, output] / 2**self.canaries)
        return np.cumsum(exactly[::-1])[::-1]


def random_mechanism(rng: np.random.Generator, canaries: int) -> SmallMechanism:
    """Leaky outputs of any dependence between the canaries, mixed with noise so that epsilons differ."""
    sharpness, noise = rng.choice([0.05, 0.3, 1.0, 5.0]), rng.choice([0.0, 0.3, 0.8])
    leaky = rng.dirichlet(np.full(2 * 2**canaries, sharpness), size=2**canaries)
    return SmallMechanism(canaries, (1 - noise) * leaky + noise / leaky.shape[1])
