"""Times operating-system randomness against the library generator that it replaces.

    python benchmarks/noise.py [--parameters 1000000] [--units 1000000] [--bins 1000] [--repeats 15] [--json]

Rows: Gaussian noise of one step, one Poisson sample of all units, discrete Gaussian noise of one release. Each is timed
beside what torch or NumPy would take for the same numbers of values, turn by turn in one run, so that a busy machine
slows both alike; medians are printed, and their ratio. The library columns are no alternatives: their generators are
predictable, and rounding a continuous Gaussian does not give a discrete one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dp_assets.privacy.randomness import SystemRandomness, bernoulli, discrete_gaussian, normals

SAMPLING_PROBABILITY = 0.0228
VOTES_NOISE_STDDEV = 10.0


@dataclass(frozen=True)
class Timing:
    """Medians over all turns, in seconds."""

    act: str
    values: int
    operating_system: float
    library: float

    @property
    def ratio(self) -> float:
        return self.operating_system / self.library


def measure(act: str, values: int, ours: Callable[[], object], library: Callable[[], object], repeats: int) -> Timing:
    """Both in turns; a first turn of each, which warms caches and allocators, is thrown away."""
    turns = [(seconds(ours), seconds(library)) for _ in range(repeats + 1)][1:]
    return Timing(act, values, *(statistics.median(column) for column in zip(*turns, strict=True)))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timings(*, num_parameters: int, num_units: int, num_bins: int, repeats: int) -> list[Timing]:
    source = SystemRandomness()
    library = np.random.default_rng()
    gaussian = partial(normals, source, num_parameters), partial(torch.randn, num_parameters, dtype=torch.float64)
    poisson = (
        partial(bernoulli, source, num_units, SAMPLING_PROBABILITY),
        lambda: torch.rand(num_units, dtype=torch.float64) < SAMPLING_PROBABILITY,
    )
    votes = (
        partial(discrete_gaussian, source, num_bins, VOTES_NOISE_STDDEV),
        lambda: np.rint(library.normal(scale=VOTES_NOISE_STDDEV, size=num_bins)),
    )
    return [
        measure("Gaussian noise of a step", num_parameters, *gaussian, repeats),
        measure("Poisson sample of a step", num_units, *poisson, repeats),
        measure("discrete Gaussian noise of a release", num_bins, *votes, repeats),
    ]


def show(measured: list[Timing], *, repeats: int) -> None:
    title = f"median of {repeats} turns, {torch.get_num_threads()} threads"
    table = Table("act", "values", "operating system", "library", "ratio", title=title)
    for timing in measured:
        milliseconds = (f"{1_000 * value:.3f} ms" for value in (timing.operating_system, timing.library))
        table.add_row(timing.act, f"{timing.values:,}", *milliseconds, f"{timing.ratio:.1f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time operating-system randomness against library generators.")
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--bins", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    measured = timings(
        num_parameters=given.parameters, num_units=given.units, num_bins=given.bins, repeats=given.repeats
    )
    if given.json:
        print(json.dumps([asdict(timing) | {"ratio": timing.ratio} for timing in measured], indent=2))
    else:
        show(measured, repeats=given.repeats)


if __name__ == "__main__":
    main()
