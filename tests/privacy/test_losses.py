"""Privacy loss distributions: upper bounds whatever the grid, in bounded time and memory."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, DpEvent, GaussianDpEvent

from dp_assets.privacy import losses
from dp_assets.privacy.events import DiscreteGaussianDpEvent, dpsgd_event, event_to_json
from dp_assets.privacy.losses import ONE_UNIT, Account, Unaccountable, account

# Ten times what the interpreter and its libraries take, and far less than one grid that grows with the noise.
BYTES, SECONDS = 2 * 2**30, 60


def certified(event: DpEvent, interval: float = 1e-4) -> Account:
    return account(json.dumps(event_to_json(event)), ONE_UNIT, interval)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The exact delta of a Gaussian mechanism (Balle and Wang, arXiv 1805.06083, Theorem 8)."""
    return normal_cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal_cdf(-mu / 2 - epsilon / mu)


def normal_cdf(value: float) -> float:
    """Accurate in the lower tail, where the library's own cancels."""
    return 0.5 * math.erfc(-value / math.sqrt(2))


def votes_delta(noise_stddev: float, votes: int, epsilon: float) -> float:
    """The exact delta of moving one count by `votes`, summed over the integers."""
    reach = math.ceil(12 * noise_stddev) + votes
    counts = np.arange(-reach, reach + votes + 1)
    log_mass = -0.5 * (counts / noise_stddev) ** 2
    norm = np.log(np.exp(log_mass).sum())
    moved = -0.5 * ((counts - votes) / noise_stddev) ** 2
    return float(np.maximum(0, np.exp(log_mass - norm) - np.exp(epsilon + moved - norm)).sum())


@pytest.mark.parametrize("delta", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("interval", [1e-3, 1e-4])
def test_ten_thousand_composed_steps_are_never_undercounted(delta: float, interval: float) -> None:
    """Composed numerically they are exactly one Gaussian, so rounding in the transforms would show."""
    steps = dpsgd_event(sampling_probability=1.0, noise_multiplier=100.0, steps=10_000)
    epsilon = certified(steps, interval).get_epsilon(delta)
    assert gaussian_delta(1.0, epsilon) <= delta
    assert gaussian_delta(1.0, epsilon - 0.05) > delta


@pytest.mark.parametrize("noise_stddev", [0.6, 1.0, 4.0, 10.0, 300.0])
@pytest.mark.parametrize("votes", [1, 2, 8])
def test_votes_are_never_undercounted(noise_stddev: float, votes: int) -> None:
    event = DiscreteGaussianDpEvent(noise_stddev, votes)
    epsilons = [0.0, 0.001, 0.01, 0.1, 1.0, 4.0]
    exact = np.array([votes_delta(noise_stddev, votes, epsilon) for epsilon in epsilons])
    bounds = certified(event).get_delta(epsilons)
    assert (bounds >= exact - 1e-15).all()
    np.testing.assert_allclose(bounds, exact, rtol=1e-3, atol=1e-5)


def test_many_steps_of_much_noise_are_not_lost_on_a_coarse_grid() -> None:
    steps = dpsgd_event(sampling_probability=1.0, noise_multiplier=2e4, steps=10_000)
    epsilon = certified(steps, 1e-3).get_epsilon(1e-6)
    assert gaussian_delta(0.005, epsilon) <= 1e-6
    assert gaussian_delta(0.005, 0.95 * epsilon) > 1e-6


def test_little_noise_is_counted_on_a_coarser_grid_from_above() -> None:
    epsilon = certified(GaussianDpEvent(0.1)).get_epsilon(1e-5)
    assert gaussian_delta(10.0, epsilon) <= 1e-5
    assert gaussian_delta(10.0, 0.999 * epsilon) > 1e-5


def test_losses_beyond_the_grid_count_as_no_noise() -> None:
    assert certified(GaussianDpEvent(1e-3)).get_epsilon(1e-5) == math.inf
    assert certified(DiscreteGaussianDpEvent(1e-3)).get_delta(10.0) == 1


def test_a_delta_below_what_rounding_hides_has_no_epsilon() -> None:
    steps = dpsgd_event(sampling_probability=0.01, noise_multiplier=1.0, steps=100_000)
    assert certified(steps).get_epsilon(1e-11) == math.inf


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (dpsgd_event(sampling_probability=0.1, noise_multiplier=1.0, steps=10**9), "generator.steps"),
        (DiscreteGaussianDpEvent(1e7), "votes.noise_stddev"),
        (GaussianDpEvent(1e300), "noise multiplier"),
    ],
)
def test_what_would_take_unbounded_time_or_memory_is_refused_by_name(event: DpEvent, field: str) -> None:
    with pytest.raises(Unaccountable, match=field):
        certified(event)


@pytest.mark.parametrize("asked", [1e-3, 1e-4])
def test_the_number_of_points_is_bounded_whatever_the_noise(asked: float) -> None:
    for noise in np.geomspace(1e-3, 1e5, 40):
        steps = dpsgd_event(sampling_probability=0.02, noise_multiplier=float(noise), steps=1000)
        event = ComposedDpEvent([steps, DiscreteGaussianDpEvent(1e3)])
        interval = losses._suitable_interval(event, losses.RELATION, asked)
        mechanisms = [(losses._shifts(part, losses.RELATION), uses) for part, uses in losses._mechanisms(event, 1)]
        assert losses._range_of_losses(mechanisms) / interval <= losses.RANGE / asked * (1 + 1e-9)


BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({bytes}, {bytes}))
from dp_assets.privacy import accounting
from dp_assets.privacy.events import ComposedDpEvent, DiscreteGaussianDpEvent, dpsgd_event
from dp_assets.privacy.plan import UnreachableTarget
from tests.privacy.plans import plan_of
from dp_assets.privacy.units import PrivacyUnit

def planned(level, **changes):
    constants = dict(
        delta=5e-7, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1, sampling_probability=4096 / 180_000, steps=440,
        spare_steps=0, l2_clip_norm=0.5, expected_batch_size=4096, num_bins=1000, votes_noise_stddev=10.0,
    )
    try:
        return plan_of(level, **(constants | changes)).epsilon
    except UnreachableTarget as refusal:
        return str(refusal)

def joint(noise_multiplier, *, steps=440, probability=0.02, votes=10.0, delta=5e-7):
    steps = dpsgd_event(sampling_probability=probability, noise_multiplier=noise_multiplier, steps=steps)
    event = ComposedDpEvent([steps, DiscreteGaussianDpEvent(votes)])
    accounting.replace_one_epsilon(event, delta), accounting.trade_off(event, (0.01,))
    return accounting.epsilon(event, delta)

for case in sys.argv[1:]:
    print(eval(case))
"""


def bounded(*cases: str) -> list[str]:
    """What each case prints in a process that may use little memory, one after another."""
    program = BOUNDED.replace("{bytes}", str(BYTES))
    done = subprocess.run(
        [sys.executable, "-c", program, *cases],
        capture_output=True,
        text=True,
        timeout=SECONDS * len(cases),
        check=False,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_extreme_plans_are_answered_or_refused_in_bounded_memory() -> None:
    answers = bounded(
        "planned('eps-0.01', votes_noise_stddev=1000.0)",
        "planned('eps-0.001')",
        "planned(f'eps-1{0:0300}')",
        "planned('eps-5.94', steps=100_000)",
        "planned('eps-5.94', steps=10**12)",
        "planned('eps-5.94', votes_noise_stddev=1e4)",
        "planned('eps-5.94', votes_noise_stddev=1e9)",
        "planned('eps-5.94', votes_noise_stddev=1e-9)",
        "planned('eps-5.94', delta=1e-12)",
        "planned('eps-5.94', delta=1e-30)",
        "planned('eps-5.94', sampling_probability=1.0)",
    )
    refused = {1: "votes.noise_stddev", 4: "steps", 6: "votes.noise_stddev", 7: "votes.noise_stddev", 9: "delta"}
    targets = {0: 0.01, 2: 1e300, 3: 5.94, 5: 5.94, 8: 5.94, 10: 5.94}
    assert all(field in answers[place] for place, field in refused.items())
    assert all(0.9 * min(target, 250) <= float(answers[place]) <= target for place, target in targets.items())


@pytest.mark.slow
def test_extreme_events_are_answered_in_bounded_memory() -> None:
    tiny, small, huge, absurd, votes, full = map(
        float,
        bounded(
            "joint(200.0, steps=100_000, votes=1e4)",
            "joint(0.05)",
            "joint(1e-4)",
            "joint(1e-300, votes=1e-300)",
            "joint(1.0, votes=0.01)",
            "joint(50.0, steps=100_000, probability=1.0)",
        ),
    )
    assert 0 < tiny < 0.2
    assert 1000 < small < math.inf
    assert huge == absurd == math.inf
    assert votes > 4000
    assert 20 < full < 100
