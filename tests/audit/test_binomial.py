"""Clopper-Pearson bounds: exact tails, exact coverage, and the ends."""

import numpy as np
import pytest
from scipy.stats import binom

from dp_assets.audit.binomial import binomial_lower, binomial_tails, binomial_upper, check_significance


@pytest.mark.parametrize("trials", [0, 1, 20, 1000])
@pytest.mark.parametrize("chance", [0.5, 0.9, 1 - 1e-9, 1.0])
def test_tails_are_those_of_the_binomial_distribution(trials: int, chance: float) -> None:
    least = np.arange(-1, trials + 1)
    assert binomial_tails(least, trials, chance) == pytest.approx(binom.sf(least - 1, trials, chance), rel=1e-10)


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (3, 20), (20, 20), (950, 1000)])
@pytest.mark.parametrize("significance", [0.001, 0.05])
def test_the_lower_bound_gives_so_many_successes_exactly_the_significance(
    successes: int, trials: int, significance: float
) -> None:
    lower = binomial_lower(successes, trials, significance)
    assert binom.sf(successes - 1, trials, lower) == pytest.approx(significance)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (3, 20), (0, 20), (950, 1000)])
@pytest.mark.parametrize("significance", [0.001, 0.05])
def test_the_upper_bound_gives_so_few_successes_exactly_the_significance(
    successes: int, trials: int, significance: float
) -> None:
    upper = binomial_upper(successes, trials, significance)
    assert binom.cdf(successes, trials, upper) == pytest.approx(significance)


def test_either_bound_errs_with_at_most_its_significance_at_every_probability() -> None:
    counts = np.arange(31)
    lowers = np.array([binomial_lower(int(count), 30, 0.05) for count in counts])
    uppers = np.array([binomial_upper(int(count), 30, 0.05) for count in counts])
    for chance in np.linspace(0.001, 0.999, 97):
        likelihood = binom.pmf(counts, 30, chance)
        assert likelihood[lowers > chance].sum() <= 0.05
        assert likelihood[uppers < chance].sum() <= 0.05


def test_without_trials_nothing_is_known() -> None:
    assert (binomial_lower(0, 0, 0.05), binomial_upper(0, 0, 0.05)) == (0.0, 1.0)
    assert binomial_lower(0, 10, 0.05) == 0.0
    assert binomial_upper(10, 10, 0.05) == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes must lie between 0 and trials"):
        binomial_lower(successes, trials, 0.05)
    with pytest.raises(ValueError, match="successes must lie between 0 and trials"):
        binomial_upper(successes, trials, 0.05)


@pytest.mark.parametrize("significance", [-0.1, 0.0, 1.0, float("nan")])
def test_a_significance_that_is_no_chance_of_an_error_is_refused(significance: float) -> None:
    with pytest.raises(ValueError, match="significance must lie in"):
        check_significance(significance)
