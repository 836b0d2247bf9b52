"""How far the quotas of a rule will lie from the exact votes, before any vote is cast.

The total variation between the shares asked for and the exact shares, expected from public constants: N units (the
owner's guess), K bins and noise of standard deviation s. Noise alone moves a bin by E|z| = s sqrt(2 / pi), so

    noise alone    n = sqrt(2 / pi) / 2 * s K / N
    expected       1 / (1 / n + 1 / c)

The ceiling c is what the rule comes to where noise hides everything: for the smoothed rule how far the pool itself is
from the real units, for the paper's how far clipped noise is. Neither can be known beforehand. The defaults were
measured on public corpora (docs/results/resampling.md), where the formula is held against measured distances.
"""

import math

CEILINGS = {"smoothed": 0.45, "paper": 0.83}
"""Of the rules by name, measured: a public stand-in for the owner's pool and units."""


def expected_total_variation(
    *, num_units: int, num_bins: int, noise_stddev: float, rule: str, ceiling: float | None = None
) -> float:
    """The expected total variation between a rule's shares and the exact votes, 0 without noise.

    `ceiling` overrides the rule's, where the distance between pool and units is known from public data.

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


def most_bins(*, num_units: int, noise_stddev: float, rule: str, total_variation: float) -> int:
    """The most bins, at least 2, whose expected total variation is at most `total_variation`.

    Raises:
      ValueError: the limit is not between 0 and the rule's ceiling, or there is no noise.
    """
    ceiling = CEILINGS[rule]
    if not 0 < total_variation < ceiling or noise_stddev <= 0:
        raise ValueError(f"total_variation must lie between 0 and {ceiling:g}, and noise_stddev above 0")
    of_noise = 1 / (1 / total_variation - 1 / ceiling)
    return max(2, int(of_noise * num_units / (noise_stddev * math.sqrt(2 / math.pi) / 2)))
