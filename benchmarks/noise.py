"""Times operating-system randomness against the library generator that it replaces.

    python -m benchmarks.noise [--parameters 1000000] [--units 1000000] [--bins 1000] [--repeats 15]

Rows: Gaussian noise of one step, one Poisson sample of all units, discrete Gaussian noise of one release. Each is timed
beside what torch or NumPy would take for the same numbers of values. The library columns are no alternatives: their
generators are predictable, and rounding a continuous Gaussian does not give a discrete one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.harness import interleave, options, ratio, store, summaries
from dp_assets.privacy.randomness import SystemRandomness, bernoulli, discrete_gaussian, normals

SAMPLING_PROBABILITY = 0.0228
VOTES_NOISE_STDDEV = 10.0

Sides = dict[str, Callable[[], object]]


def acts(*, num_parameters: int, num_units: int, num_bins: int) -> dict[str, Sides]:
    """What is timed against what, by the name of the act."""
    source, library = SystemRandomness(), np.random.default_rng()
    return {
        "gaussian_noise_of_a_step": {
            "operating_system": partial(normals, source, num_parameters),
            "library": partial(torch.randn, num_parameters, dtype=torch.float64),
        },
        "poisson_sample_of_a_step": {
            "operating_system": partial(bernoulli, source, num_units, SAMPLING_PROBABILITY),
            "library": lambda: torch.rand(num_units, dtype=torch.float64) < SAMPLING_PROBABILITY,
        },
        "discrete_gaussian_noise_of_a_release": {
            "operating_system": partial(discrete_gaussian, source, num_bins, VOTES_NOISE_STDDEV),
            "library": lambda: np.rint(library.normal(scale=VOTES_NOISE_STDDEV, size=num_bins)),
        },
    }


def measure(sides: Sides, *, repeats: int) -> dict[str, Any]:
    seconds = interleave(sides, repeats=repeats)
    return {
        "seconds": summaries(seconds),
        "operating_system_over_library": ratio(seconds["operating_system"], seconds["library"]),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--bins", type=int, default=1_000)
    parser.set_defaults(repeats=15)
    given = parser.parse_args()
    timed = acts(num_parameters=given.parameters, num_units=given.units, num_bins=given.bins)
    store("noise", {act: measure(sides, repeats=given.repeats) for act, sides in timed.items()}, given)


if __name__ == "__main__":
    main()
