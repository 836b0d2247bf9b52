"""Each difference between plan and run is caught by a named check."""

from typing import Any

import pytest
from plans import small_plan

from dp_assets.privacy.claim import check_dpsgd, check_votes
from dp_assets.privacy.evidence import votes_evidence
from dp_assets.privacy.randomness import SystemRandomness

PLAN = small_plan()
TENSORS = {"count": 2, "sha256": "a"}
HONEST: dict[str, Any] = {
    "mechanism": "dpsgd",
    "sampler": "poisson",
    "unit": "user",
    "rows_per_sampled_unit": 1,
    "sampling_probability": 0.25,
    "l2_clip_norm": 0.5,
    "noise_multiplier": PLAN.dpsgd.noise_multiplier,
    "normaliser": 16,
    "loss_reduction": "sum",
    "steps": 4,
    "noise_draws": 4,
    "continuations": 0,
    "randomness": "operating-system",
    "trained_tensors": TENSORS,
    "noised_tensors": TENSORS,
}


def checks_of(**changed: Any) -> set[str]:
    return {found.check for found in check_dpsgd(PLAN.dpsgd, PLAN.unit, HONEST | changed)}


def test_an_honest_run_passes() -> None:
    assert checks_of() == set()
    assert checks_of(steps=6, noise_draws=6, continuations=2) == set()


@pytest.mark.parametrize(
    ("changed", "caught_by"),
    [
        ({"steps": 5, "noise_draws": 5}, "steps"),
        ({"noise_draws": 3}, "noise_draws"),
        ({"noise_draws": 8}, "noise_draws"),
        ({"sampler": "shuffled"}, "sampler"),
        ({"unit": "instruction"}, "unit"),
        ({"rows_per_sampled_unit": 2}, "rows_per_sampled_unit"),
        ({"normaliser": 17}, "normaliser"),
        ({"loss_reduction": "mean"}, "loss_reduction"),
        ({"randomness": "seeded"}, "randomness"),
        ({"l2_clip_norm": 0.6}, "l2_clip_norm"),
        ({"noise_multiplier": 0.1}, "noise_multiplier"),
        ({"trained_tensors": {"count": 3, "sha256": "b"}}, "noised_tensors"),
        ({"continuations": 3, "steps": 7, "noise_draws": 7}, "continuations"),
        ({"continuations": None}, "continuations"),
    ],
)
def test_a_planted_difference_is_caught_by_its_check(changed: dict[str, Any], caught_by: str) -> None:
    assert caught_by in checks_of(**changed)


def test_missing_evidence_is_a_difference() -> None:
    assert {found.check for found in check_dpsgd(PLAN.dpsgd, PLAN.unit, {})} >= {"sampler", "steps", "randomness"}


def test_votes_without_noise_on_every_bin_are_caught() -> None:
    honest = votes_evidence(num_bins=8, noised_bins=8, noise_stddev=4.0, source=SystemRandomness()).public
    assert check_votes(PLAN.votes, honest) == []
    assert [found.check for found in check_votes(PLAN.votes, {**honest, "noised_bins": 7})] == ["noised_bins"]
