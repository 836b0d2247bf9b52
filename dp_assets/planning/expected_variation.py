"""The expected distance between a rule's quotas and the exact votes, before any vote is cast.

The distance is the total variation between the shares that the rule asks for and the exact shares. It is computed from
public constants: N units (the owner's guess), K bins and noise of standard deviation s. Noise alone moves a bin by
E|z| = s sqrt(2 / pi), so

    noise alone    n = sqrt(2 / pi) / 2 * s K / N
    expected       1 / (1 / n + 1 / c)

The ceiling c is the rule's distance where noise dominates: for the smoothed rule the distance of the pool from the real
units, for the paper's rule that of clipped noise. Neither is known beforehand. The defaults were measured on public
corpora; docs/results/resampling.md compares the formula with measured distances.
"""

import math
from collections.abc import Mapping

from dp_assets.vocabulary import Rule

CEILINGS: Mapping[Rule, float] = {"smoothed": 0.45, "paper": 0.83}
"""By rule, measured on public corpora in place of the owner's pool and units."""


def expected_total_variation(
    *, num_units: int, num_bins: int, noise_stddev: float, rule: Rule, ceiling: float | None = None
) -> float:
    """Return the expected total variation between a rule's shares and the exact votes, 0 without noise.

    Args:
      num_units: the owner's guess.
      num_bins: the number of bins.
      noise_stddev: of the noise of a bin, in votes.
      rule: one of `CEILINGS`.
      ceiling: replaces the rule's ceiling where the distance between pool and units is known from public data.

    Raises:
      ValueError: there is no such rule, or a number is not positive.
    """
    if rule not in CEILINGS:
        raise ValueError(f"rule must be one of {', '.join(CEILINGS)}, not {rule!r}")
    if num_units < 1 or num_bins < 1 or noise_stddev < 0:
        raise ValueError("num_units and num_bins must be at least 1, noise_stddev not negative")
    of_noise = math.sqrt(2 / math.pi) / 2 * noise_stddev * num_bins / num_units
    limit = ceiling or CEILINGS[rule]
    return of_noise * limit / (of_noise + limit)


def most_bins(*, num_units: int, noise_stddev: float, rule: Rule, total_variation: float) -> int:
    """Return the largest number of bins, at least 2, whose expected total variation is at most `total_variation`.

    Raises:
      ValueError: the limit is not between 0 and the rule's ceiling, or there is no noise.
    """
    ceiling = CEILINGS[rule]
    if not 0 < total_variation < ceiling or noise_stddev <= 0:
        raise ValueError(f"total_variation must lie between 0 and {ceiling:g}, and noise_stddev above 0")
    of_noise = 1 / (1 / total_variation - 1 / ceiling)
    return max(2, int(of_noise * num_units / (noise_stddev * math.sqrt(2 / math.pi) / 2)))
