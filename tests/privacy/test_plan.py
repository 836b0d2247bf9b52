"""Calibration, and the plan as the one source of parameters and event."""

import math
from dataclasses import replace

import pytest
from scipy.stats import binom

from dp_assets.privacy import accounting
from dp_assets.privacy import plan as plans
from dp_assets.privacy.events import DiscreteGaussianDpEvent
from dp_assets.privacy.plan import SMALLEST_NOISE_MULTIPLIER, UnreachableTarget, target_of
from dp_assets.privacy.units import PrivacyUnit
from tests.privacy.plans import plan_of, small_plan

PAPER = {
    "delta": 5e-7,
    "unit": PrivacyUnit.INSTRUCTION,
    "max_rows_per_unit": 1,
    "sampling_probability": 4096 / 180_000,
    "steps": 440,
    "spare_steps": 0,
    "l2_clip_norm": 0.5,
    "expected_batch_size": 4096,
    "num_bins": 1000,
    "votes_noise_stddev": 10.0,
}


@pytest.mark.parametrize(("level", "expected"), [("eps-5.94", 0.8087), ("eps-2.86", 1.1305)])
def test_calibration_meets_the_reference_noise_multiplier(level: str, expected: float) -> None:
    plan = plan_of(level, **PAPER)
    assert plan.dpsgd.noise_multiplier == pytest.approx(expected, abs=0.0005)
    assert plan.epsilon <= target_of(level)


@pytest.mark.parametrize(("steps", "expected"), [(440, 5.938), (450, 5.991)])
def test_ten_spare_steps_cost_what_the_reference_says(steps: int, expected: float) -> None:
    plan = plan_of("eps-5.94", **PAPER)
    fixed = replace(plan.dpsgd, noise_multiplier=0.8087, spare_steps=steps - 440)
    assert replace(plan, dpsgd=fixed).epsilon == pytest.approx(expected, abs=0.003)


def test_spare_steps_are_inside_the_account() -> None:
    plan = plan_of("eps-5.94", **(PAPER | {"spare_steps": 22}))
    assert plan.dpsgd.noise_multiplier > plan_of("eps-5.94", **PAPER).dpsgd.noise_multiplier
    assert plan.dpsgd.event.count == 462


def test_the_least_noise_that_meets_the_target_is_chosen() -> None:
    plan = small_plan()
    less = replace(plan, dpsgd=replace(plan.dpsgd, noise_multiplier=plan.dpsgd.noise_multiplier - 0.002))
    assert plan.epsilon <= 8 < less.epsilon


@pytest.mark.parametrize("shortfall", [1e-4, 4e-4])
def test_noise_that_the_finer_account_finds_too_small_by_a_hair_is_raised(
    monkeypatch: pytest.MonkeyPatch, shortfall: float
) -> None:
    enough = small_plan()
    found = enough.dpsgd.noise_multiplier - shortfall - 1e-9
    monkeypatch.setattr(plans, "_least_noise", lambda _: found)
    unraised = replace(enough, dpsgd=replace(enough.dpsgd, noise_multiplier=found))
    raised = plans.calibrated.__wrapped__(enough)
    assert raised.epsilon <= 8 < unraised.epsilon < 8.008
    assert raised.dpsgd.noise_multiplier == enough.dpsgd.noise_multiplier


def test_the_joint_epsilon_covers_both_mechanisms() -> None:
    plan = small_plan()
    assert accounting.epsilon(plan.dpsgd.event, plan.delta) < plan.epsilon
    assert plan.votes.event == DiscreteGaussianDpEvent(4.0)


def test_the_level_no_dp_has_no_noise_and_infinite_epsilon() -> None:
    plan = small_plan("no-dp")
    assert (plan.dpsgd.noise_multiplier, plan.votes.noise_stddev) == (0, 0)
    assert plan.epsilon == math.inf
    assert not plan.is_private


def test_a_target_below_the_histograms_own_cost_is_refused() -> None:
    with pytest.raises(UnreachableTarget, match=r"votes\.noise_stddev"):
        small_plan("eps-0.5")


def test_a_target_that_only_absurd_noise_would_meet_is_refused() -> None:
    with pytest.raises(UnreachableTarget, match=r"generator\.steps"):
        plan_of("eps-0.01", **(PAPER | {"votes_noise_stddev": 1e4, "sampling_probability": 1.0}))


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("delta", 1e-15, r"corpus\.delta"),
        ("steps", 10**12, r"generator\.steps"),
        ("votes_noise_stddev", 1e9, r"votes\.noise_stddev"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused_by_its_name(field: str, value: float, named: str) -> None:
    with pytest.raises(UnreachableTarget, match=named):
        plan_of("eps-5.94", **(PAPER | {field: value}))


def test_a_large_target_is_met_with_the_smallest_noise_that_is_allowed() -> None:
    plan = small_plan("eps-1000000")
    assert plan.dpsgd.noise_multiplier == SMALLEST_NOISE_MULTIPLIER


@pytest.mark.parametrize("target", [1.3, 3.0])
def test_calibration_is_tight_over_a_range_of_targets(target: float) -> None:
    plan = small_plan(f"eps-{target}")
    assert 0.995 * target <= plan.epsilon <= target


def test_the_noise_multiplier_is_rounded_up_to_four_decimals() -> None:
    noise = small_plan().dpsgd.noise_multiplier
    assert noise == round(noise, 4)


def test_every_constant_changes_the_digest() -> None:
    plan = small_plan()
    changed = [
        replace(plan, delta=2e-5),
        replace(plan, max_rows_per_unit=3),
        replace(plan, dpsgd=replace(plan.dpsgd, l2_clip_norm=0.6)),
        replace(plan, votes=replace(plan.votes, num_bins=9)),
    ]
    assert len({plan.digest, *(other.digest for other in changed)}) == 5


@pytest.mark.parametrize(
    "level",
    ["eps-", "eps-0", "eps--1", "eps-inf", "8", "none", "eps-nan", "eps-1_0", "eps-\u0668", "eps-8\n", "eps-1e3"],
)
def test_a_level_that_names_no_target_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="level"):
        target_of(level)


@pytest.mark.parametrize(
    ("field", "value"),
    [("delta", 0.0), ("sampling_probability", 1.5), ("steps", 0), ("l2_clip_norm", 0.0), ("num_bins", 1)],
)
def test_a_constant_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        plan_of("eps-5.94", **(PAPER | {field: value}))


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("expected_batch_size", [1, 16, 10**9])
def test_the_largest_batch_is_that_of_as_many_units_as_delta_allows_for(delta: float, expected_batch_size: int) -> None:
    """By the exact tail of the binomial distribution; the declared batch may make it larger and never smaller."""
    plan = small_plan()
    dpsgd = replace(plan.dpsgd, expected_batch_size=expected_batch_size)
    largest = replace(plan, delta=delta, dpsgd=dpsgd).largest_batch
    assert largest >= expected_batch_size
    assert binom.sf(largest, round(0.1 / delta), dpsgd.sampling_probability) <= 1e-12
