"""Sequential tests of outputs, valid whenever they are stopped: of a privacy claim, and of the plan's distribution.

A test starts with a wealth of 1 and bets on each output before it is seen. If the null hypothesis holds, no bet gains
on average, so the wealth is a nonnegative supermartingale, and the probability that it ever reaches 1 / significance is
at most `significance` (Ville's inequality). The test may therefore be stopped after any output. The wealth is also
called an e-process, and a mixture of bets, each with a share of the wealth, is one again.

Two kinds of null hypothesis:

    ClaimTest             privacy: the outputs with and without one unit satisfy stated pairs (epsilon, delta)
    StepFit, VotesFit     goodness of fit: the outputs have the distribution that the plan states

`ClaimTest` follows Gonzalez, Dulce-Rubio, Ramdas and Ribero, "Sequentially Auditing Differential Privacy" (arXiv
2509.07055): it bets on a witness of the difference between two streams of outputs. The paper learns a witness in a
kernel space. Here the witnesses are sets of outputs, because a set attains the hockey-stick divergence that defines
(epsilon, delta). The mean of a bounded function moves by no more than the total variation, of which a claim of epsilon
8 allows 0.9993. Nothing is assumed about the outputs. The price is the number of samples: with a single pair (epsilon,
delta) a violation takes more than exp(epsilon) of them.

`StepFit` and `VotesFit` test the code against its plan. Their null hypothesis is one distribution, so they need far
fewer samples. They also find differences that lose no privacy, such as too much noise. A rejection shows that the
outputs are not those of the plan, not that privacy is lost. The exact values under the noise must be known, so such an
audit runs on public rows.

Outputs are sorted into cells of known probability. A bet on cells follows their frequencies so far: it is the
predictive distribution of a Dirichlet prior centered on the plan. Dependence is found by one such bet for each cell of
an earlier output.

Left out: the paper's kernel witness and its learning. Not covered: differences that no bet describes, and differences
too small for the number of samples. Outputs of a seeded sampler look random within one run; it takes two runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dp_accounting import DpEvent
from scipy import special

from dp_assets.privacy import accounting

Array = npt.NDArray[np.float64]

PRIOR_SAMPLES = 4.0
"""A bet on cells starts as if so many outputs had followed the plan. More would learn later, fewer less steadily."""
TAILS = (1e-6, 1e-4, 1e-2)
MIDDLE_CELLS = 8
QUARTERS = np.array([0.25, 0.5, 0.75])
SMALLEST_P_VALUE = 1e-300
LEAST_VOTES_NOISE, NO_MASS = 0.25, 1e-9

BET_FRACTIONS = np.array([0.01, 0.03, 0.1, 0.3, 0.6, 0.9, 0.99])
"""Of the largest stake that cannot be lost entirely. Wealth is divided equally among them."""
AT_ONCE = 256
CURVE_DELTAS = (0.3, 0.2, 0.1, 0.03, 0.01, 1e-3, 1e-5)
EPSILON_STEP, LARGEST_EPSILON = 0.02, 20.0


class Wealth:
    """The wealth of several named bets against one null hypothesis, which start with equal shares.

    - `num_samples`: the outputs that were bet on so far.
    - `rejected_after`: how many outputs it took to reject; None while the hypothesis stands. It is never reset.

    Args:
      names: the names of the bets.
      significance: the probability of ever rejecting a true hypothesis, in (0, 1).

    Raises:
      ValueError: `significance` lies outside (0, 1).
    """

    def __init__(self, names: Sequence[str], *, significance: float) -> None:
        self._threshold = _log_threshold(significance)
        self._log_wealth = dict.fromkeys(names, 0.0)
        self.num_samples = 0
        self.rejected_after: int | None = None

    def settle(self, log_factors: Mapping[str, float]) -> None:
        """Multiply the wealth of each named bet by the exponential of its factor, after one more output."""
        for name, log_factor in log_factors.items():
            self._log_wealth[name] += log_factor
        self.num_samples += 1
        if self.rejected_after is None and self.log_e_value >= self._threshold:
            self.rejected_after = self.num_samples

    @property
    def log_e_value(self) -> float:
        """The natural logarithm of the mean wealth of all bets."""
        return float(_log_mean_exp(np.array(list(self._log_wealth.values()))))

    @property
    def leading(self) -> str:
        """The name of the bet with the greatest wealth."""
        return max(self._log_wealth, key=self._log_wealth.__getitem__)


def _log_threshold(significance: float) -> float:
    if not 0 < significance < 1:
        raise ValueError("significance must lie in (0, 1)")
    return -math.log(significance)


def _log_mean_exp(values: Array) -> Array:
    """Return log(mean(exp(values))) over the last axis, without overflow."""
    largest = values.max(axis=-1)
    log_mean: Array = np.log(np.exp(values - largest[..., None]).mean(axis=-1)) + largest
    return log_mean


# Bets on the distribution of one output


@dataclass(frozen=True)
class Cells:
    """Intervals between ascending `edges`, shape [cells - 1], and the planned probability of each, shape [cells]."""

    edges: Array
    probabilities: Array

    def index(self, value: float) -> int:
        """Return the index of the cell of `value`. A value that equals an edge lies above it."""
        return int(np.searchsorted(self.edges, value, side="right"))


def uniform_cells() -> Cells:
    """Return cells for values that are planned to be uniform in [0, 1]: equal ones in the middle, small ones outside.

    The small ones have the probabilities of `TAILS`, so that a few outputs far outside suffice.
    """
    edges = _cell_edges()
    return Cells(edges, np.diff(edges, prepend=0.0, append=1.0))


def integer_cells(noise_stddev: float) -> Cells:
    """Return cells for discrete Gaussian integers, about as probable as those of `uniform_cells`.

    The distribution is P(x) proportional to exp(-x^2 / (2 noise_stddev^2)) (Canonne, Kamath and Steinke, arXiv
    2004.00010, Definition 1). Its mass beyond 12 standard deviations, below 1e-30, is left out.

    Raises:
      ValueError: `noise_stddev` is below `LEAST_VOTES_NOISE`, where nearly all integers are 0, or not finite.
    """
    if not LEAST_VOTES_NOISE <= noise_stddev < math.inf:
        raise ValueError(f"noise_stddev must be finite and at least {LEAST_VOTES_NOISE:g}")
    reach = math.ceil(12 * noise_stddev) + 1
    integers = np.arange(-reach, reach + 1)
    mass = np.exp(-((integers / noise_stddev) ** 2) / 2)
    cumulative = np.cumsum(mass) / mass.sum()
    last = np.unique(np.searchsorted(cumulative, _cell_edges()))
    last = last[1 - cumulative[last] > NO_MASS]
    return Cells(integers[last] + 0.5, np.diff(cumulative[last], prepend=0.0, append=1.0))


def _cell_edges() -> Array:
    middle = np.linspace(TAILS[-1], 1 - TAILS[-1], MIDDLE_CELLS + 1)[1:-1]
    return np.concatenate([TAILS, middle, 1 - np.array(TAILS[::-1])])


class CellBet:
    """Bets that cells are as frequent as they were so far, for each context apart.

    The factor is the predictive probability of a cell, under a Dirichlet prior of `PRIOR_SAMPLES` outputs that follow
    the plan, over its planned probability. Its planned mean is 1, whatever came before. The context must be known
    before the output is, and must not change the planned probabilities.

    Args:
      probabilities: the planned probability of each cell, shape [cells], all positive.
      num_contexts: the number of contexts.
    """

    def __init__(self, probabilities: Array, *, num_contexts: int) -> None:
        self._probabilities = probabilities
        self._counts = np.tile(PRIOR_SAMPLES * probabilities, (num_contexts, 1))

    def log_factors(self, context: int) -> Array:
        """Return the logarithm of the factor that each cell would give now, shape [cells]."""
        counts = self._counts[context]
        log_factors: Array = np.log(counts / counts.sum() / self._probabilities)
        return log_factors

    def settle(self, cell: int, context: int) -> float:
        """Return the logarithm of the factor of the cell that occurred, and learn from it."""
        counts = self._counts[context]
        log_factor = math.log(counts[cell] / counts.sum() / self._probabilities[cell])
        counts[cell] += 1
        return log_factor


class RepeatBet:
    """Bets that some output repeats the noise of an earlier one, up to sign.

    The planned noise is a spherical Gaussian vector, so its direction is uniform whatever came before. The p-value of
    an output is the probability of a direction as close to one of the earlier ones, times their number. It becomes an
    e-value by the mean of all calibrators k p^(k - 1) (Vovk and Wang, arXiv 1912.06116, section 2). The t-th output
    gets the share 1 / (t (t + 1)) of the wealth, because a single repeated draw may come at any time, and all other
    outputs would lose their stakes.

    - A vector of zeros, or one that is not finite, has no direction and counts as no repetition.

    Raises:
      ValueError: `num_values` is below 2.
    """

    def __init__(self, num_values: int) -> None:
        if num_values < 2:
            raise ValueError("a direction needs at least 2 values")
        self._shape = (num_values - 1) / 2
        self._directions = np.empty((0, num_values))
        self._num_directions = self._num_outputs = 0
        self._gained = 0.0

    def p_value(self, noise: Array) -> float:
        """Return the p-value of one output, shape [num_values], given the earlier ones."""
        norm, earlier = float(np.linalg.norm(noise)), self._directions[: self._num_directions]
        if not 0 < norm < math.inf or not len(earlier):
            return 1.0
        closest = min(1.0, float(np.abs(earlier @ (noise / norm)).max()))
        of_one = 2 * float(special.betainc(self._shape, self._shape, (1 - closest) / 2))
        return min(1.0, max(SMALLEST_P_VALUE, of_one * len(earlier)))

    def settle(self, noise: Array) -> float:
        """Return the logarithm of the factor of one output, shape [num_values], and remember its direction."""
        before = self._log_wealth
        self._num_outputs += 1
        self._gained += e_value(self.p_value(noise)) / (self._num_outputs * (self._num_outputs + 1))
        norm = float(np.linalg.norm(noise))
        if 0 < norm < math.inf:
            self._remember(noise / norm)
        return self._log_wealth - before

    @property
    def _log_wealth(self) -> float:
        return math.log(self._gained + 1 / (self._num_outputs + 1))

    def _remember(self, direction: Array) -> None:
        if self._num_directions == len(self._directions):
            more = np.empty((max(64, len(self._directions)), len(direction)))
            self._directions = np.concatenate([self._directions, more])
        self._directions[self._num_directions] = direction
        self._num_directions += 1


def e_value(p_value: float) -> float:
    """Return the integral over k in [0, 1] of k p^(k - 1), an e-value (arXiv 1912.06116, section 2); 1/2 at p = 1."""
    if p_value > 1 - 1e-4:
        return 0.5
    log_p = math.log(p_value)
    return (1 - p_value + p_value * log_p) / (p_value * log_p**2)


# The plan's distribution


@dataclass(frozen=True)
class PlannedStep:
    """The planned distribution of one step of DP-SGD along the direction of one unit, the canary.

    In units of the clip norm, the noised sum along this direction is N(0, noise_multiplier^2) if the canary is not
    sampled and N(shift, noise_multiplier^2) if it is. No other unit has a part along this direction.

    Args:
      sampling_probability: the probability that the canary is in a sample.
      noise_multiplier: the noise stddev over the clip norm.
      shift: the canary's clipped gradient along the direction, over the clip norm; at most 1.

    Raises:
      ValueError: a constant is out of range.
    """

    sampling_probability: float
    noise_multiplier: float
    shift: float

    def __post_init__(self) -> None:
        if not 0 < self.sampling_probability <= 1 or not 0 < self.noise_multiplier < math.inf:
            raise ValueError("sampling_probability must lie in (0, 1], noise_multiplier must be positive and finite")
        if not 0 < self.shift <= 1:
            raise ValueError("shift must lie in (0, 1]")

    def cumulative(self, along: float) -> float:
        """Return the planned probability of an output of at most `along`, with the canary in the corpus."""
        outside, inside = special.ndtr(np.array([along, along - self.shift]) / self.noise_multiplier)
        return float(outside + self.sampling_probability * (inside - outside))

    def log_likelihood_ratio(self, along: Array) -> Array:
        """Return the log ratio of the densities with and without the canary, elementwise; shape of `along`.

        Summed over the steps of a run, it is the score of the most powerful test of the plan (Neyman and Pearson).
        """
        probability = self.sampling_probability
        log_outside = math.log1p(-probability) if probability < 1 else -math.inf
        exponent = self.shift * (along - self.shift / 2) / self.noise_multiplier**2
        log_ratio: Array = np.logaddexp(log_outside, math.log(probability) + exponent)
        return log_ratio


class StepFit:
    """Tests whether the noised sums of DP-SGD have the planned distribution, independently in each step of each run.

    An output is split into its part along the canary's direction and its rest, which is noise alone. The bets:

        canary                    the part along the direction, in cells of planned probability
        canary in quarters        the same in quarters, which learns faster where the difference is broad
        canary after last step    the same in quarters, for each quarter of the last step of the run
        canary after last run     the same in quarters, for each quarter of the same step of the last run
        size of the rest          its squared norm, planned as chi-square, in cells
        repeated noise            the direction of the rest, beside those of all earlier steps and runs

    Args:
      planned: the planned distribution along the canary's direction.
      num_rest: the number of values of the rest, at least 2.
      significance: the probability of ever rejecting outputs that follow the plan, in (0, 1).

    Raises:
      ValueError: `num_rest` is below 2, or `significance` lies outside (0, 1).
    """

    CANARY = "canary"
    IN_QUARTERS = "canary in quarters"
    AFTER_STEP = "canary after last step"
    AFTER_RUN = "canary after last run"
    SIZE = "size of the rest"
    REPEATED = "repeated noise"

    def __init__(self, planned: PlannedStep, *, num_rest: int, significance: float) -> None:
        names = (self.CANARY, self.IN_QUARTERS, self.AFTER_STEP, self.AFTER_RUN, self.SIZE, self.REPEATED)
        self.wealth = Wealth(names, significance=significance)
        self._planned, self._num_rest = planned, num_rest
        self._cells = uniform_cells()
        self._canary = CellBet(self._cells.probabilities, num_contexts=1)
        self._size = CellBet(self._cells.probabilities, num_contexts=1)
        quarters = np.full(len(QUARTERS) + 1, 0.25)
        self._in_quarters = CellBet(quarters, num_contexts=1)
        self._after_step = CellBet(quarters, num_contexts=len(quarters))
        self._after_run = CellBet(quarters, num_contexts=len(quarters))
        self._repeated = RepeatBet(num_rest)
        self._last_run: list[int] = []
        self._this_run: list[int] = []

    def begin_run(self) -> None:
        """Begin another run: the next output is that of its first step."""
        self._last_run, self._this_run = self._this_run, []

    def observe(self, along: float, rest: Array) -> None:
        """Bet on the output of the next step.

        Args:
          along: the noised sum along the canary's direction, over the clip norm.
          rest: the noised sum along directions in which no unit has a part, over the clip norm; shape [num_rest].
        """
        noise = rest / self._planned.noise_multiplier
        rank = self._planned.cumulative(along)
        size = float(special.chdtr(self._num_rest, noise @ noise))
        quarter = int(np.searchsorted(QUARTERS, rank, side="right"))
        log_factors = {
            self.CANARY: self._canary.settle(self._cells.index(rank), 0),
            self.IN_QUARTERS: self._in_quarters.settle(quarter, 0),
            self.SIZE: self._size.settle(self._cells.index(size), 0),
            self.REPEATED: self._repeated.settle(noise),
        }
        step = len(self._this_run)
        if step > 0:
            log_factors[self.AFTER_STEP] = self._after_step.settle(quarter, self._this_run[-1])
        if step < len(self._last_run):
            log_factors[self.AFTER_RUN] = self._after_run.settle(quarter, self._last_run[step])
        self._this_run.append(quarter)
        self.wealth.settle(log_factors)


class VotesFit:
    """Tests whether noisy votes are the exact ones plus the planned noise, independently in each bin and release.

    The bets:

        noise                       noisy less exact votes, in cells of planned probability, for each bin
        noise after last release    the same, for each cell of the same bin's noise in the last release

    Args:
      exact_votes: the votes of the public units that the audit counts, int64 of shape [num_bins].
      noise_stddev: the planned standard deviation of the discrete Gaussian noise, in votes.
      significance: the probability of ever rejecting releases that follow the plan, in (0, 1).

    Raises:
      ValueError: see `integer_cells` and `Wealth`.
    """

    NOISE = "noise"
    AFTER_RELEASE = "noise after last release"

    def __init__(self, exact_votes: npt.NDArray[np.int64], *, noise_stddev: float, significance: float) -> None:
        self.wealth = Wealth((self.NOISE, self.AFTER_RELEASE), significance=significance)
        self._exact_votes = exact_votes
        self._cells = integer_cells(noise_stddev)
        probabilities = self._cells.probabilities
        self._noise = CellBet(probabilities, num_contexts=len(exact_votes))
        self._after_release = CellBet(probabilities, num_contexts=len(probabilities))
        self._last: list[int] = []

    def observe(self, noisy_votes: npt.NDArray[np.int64]) -> None:
        """Bet on one release, shape [num_bins]."""
        cells = [self._cells.index(noise) for noise in (noisy_votes - self._exact_votes).tolist()]
        log_factors = {self.NOISE: sum(self._noise.settle(cell, of_bin) for of_bin, cell in enumerate(cells))}
        pairs = zip(cells, self._last, strict=False)  # the first release has none before it
        log_factors[self.AFTER_RELEASE] = sum(self._after_release.settle(cell, last) for cell, last in pairs)
        self._last = cells
        self.wealth.settle(log_factors)


# A privacy claim


@dataclass(frozen=True)
class Claim:
    """One pair: P(A) <= exp(epsilon) Q(A) + delta for every set A of outputs, for both orders of the neighbors P, Q."""

    epsilon: float
    delta: float


def claims_of(event: DpEvent) -> tuple[Claim, ...]:
    """Return pairs (epsilon, delta) on the certified curve of `event`, from its privacy loss distribution.

    A violation may be large at a delta of a few percent and tiny at the delta of the statement.
    """
    return tuple(Claim(accounting.epsilon(event, delta), delta) for delta in CURVE_DELTAS)


class ClaimTest:
    """Tests pairs (epsilon, delta) on paired outputs, one of a run with the canary and one of a run without it.

    Outputs are numbers; the test needs no other knowledge of them. It bets on the sets of outputs at or above a
    threshold if the canary takes part, and below it if not. For neighbors P and Q and a set A, one pair of outputs X of
    P and Y of Q gives

        1 + stake (1[X in A] - exp(epsilon) 1[Y in A] - delta),

    of mean at most 1 if the claim holds, and positive for each stake below 1 / (exp(epsilon) + delta). Wealth is
    divided equally among the claims, both orders of the neighbors, the thresholds, and the stakes in `BET_FRACTIONS`.

    - Violations of any claim count; a true set of claims is rejected with probability at most `significance`.
    - Pairs must be independent of each other. Within a pair no independence is needed.

    Args:
      claims: the pairs, for example of `claims_of`.
      thresholds: where sets of outputs begin, shape [thresholds]. They must not depend on the outputs.
      significance: the probability of ever rejecting a true set of claims, in (0, 1).

    Raises:
      ValueError: no claims or no thresholds, or `significance` lies outside (0, 1).
    """

    def __init__(self, claims: Sequence[Claim], *, thresholds: Array, significance: float) -> None:
        if not len(claims) or not len(thresholds):
            raise ValueError("claims and thresholds must not be empty")
        self._threshold = _log_threshold(significance)
        self._claims, self._thresholds = tuple(claims), thresholds
        self._counts = np.zeros((len(thresholds), 4))
        self.num_samples = 0
        self.rejected_after: int | None = None

    def observe(self, with_canary: Array, without_canary: Array) -> None:
        """Bet on pairs of outputs one after the other; both of shape [pairs].

        Raises:
          ValueError: the shapes differ.
        """
        _require_pairs(with_canary, without_canary)
        for start in range(0, len(with_canary), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            counts = self._counts + np.cumsum(_outcomes(with_canary[part], without_canary[part], self._thresholds), 0)
            wealth = np.array([_log_wealth(counts, claim) for claim in self._claims])  # [claims, pairs]
            rejecting = np.flatnonzero(_log_mean_exp(wealth.T) >= self._threshold)
            if self.rejected_after is None and len(rejecting):
                self.rejected_after = self.num_samples + int(rejecting[0]) + 1
            self._counts = counts[-1]
            self.num_samples += len(counts)


def epsilon_lower_bound(
    with_canary: Array, without_canary: Array, *, delta: float, thresholds: Array, significance: float
) -> float:
    """Return an epsilon that the mechanism exceeds at this delta; 0 if none is shown. It may err with `significance`.

    It is the last of a grid of epsilons up to which `ClaimTest` rejects each one after all pairs. Whoever is
    (epsilon, delta)-private is so at each larger epsilon too, so the bound exceeds the truth only if one true claim is
    rejected. It holds whenever sampling was stopped.

    Args:
      with_canary: outputs with the canary, shape [pairs].
      without_canary: outputs without it, shape [pairs].
      delta: the delta of the claim.
      thresholds: see `ClaimTest`.
      significance: the probability that the bound exceeds the truth, in (0, 1).

    Raises:
      ValueError: the shapes differ, or `significance` lies outside (0, 1).
    """
    _require_pairs(with_canary, without_canary)
    counts = _outcomes(with_canary, without_canary, thresholds).sum(axis=0)
    epsilons = np.arange(0, LARGEST_EPSILON, EPSILON_STEP).tolist()
    shown = 0.0
    for epsilon in epsilons:
        if float(_log_wealth(counts, Claim(epsilon, delta))) < _log_threshold(significance):
            break
        shown = epsilon
    return shown


def _require_pairs(with_canary: Array, without_canary: Array) -> None:
    if with_canary.shape != without_canary.shape:
        raise ValueError("with_canary and without_canary must have the same shape")


def _outcomes(with_canary: Array, without_canary: Array, thresholds: Array) -> Array:
    """Return which of four outcomes each pair has at each threshold, as zeros and ones of shape [pairs, thresholds, 4].

    The outcomes: only the output with the canary reaches the threshold, only the other one, both, neither.
    """
    first, second = with_canary[:, None] >= thresholds, without_canary[:, None] >= thresholds
    return np.stack([first & ~second, ~first & second, first & second, ~first & ~second], axis=-1).astype(np.float64)


def _log_wealth(counts: Array, claim: Claim) -> Array:
    """Return the logarithm of the mean wealth of all bets on a claim, from counts of outcomes [..., thresholds, 4].

    Only the last two outcomes change their meaning with the order of the neighbors: without the canary, the set is what
    lies below the threshold.
    """
    most = math.exp(claim.epsilon)
    stakes = BET_FRACTIONS / (most + claim.delta)
    payoffs = np.array([1 - claim.delta, -most - claim.delta, 1 - most - claim.delta, -claim.delta])
    log_factors = np.log1p(stakes * payoffs[:, None])  # [4, stakes]
    both_orders = np.concatenate([log_factors, log_factors[[0, 1, 3, 2]]], axis=1)  # [4, 2 * stakes]
    wealth = counts @ both_orders  # [..., thresholds, 2 * stakes]
    return _log_mean_exp(wealth.reshape(*wealth.shape[:-2], -1))
