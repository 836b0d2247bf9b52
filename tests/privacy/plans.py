"""A small plan, and the terms it goes with, for tests that need one."""

from typing import Any

from dp_assets.privacy.plan import DpSgdPlan, PrivacyPlan, VotesPlan, make_plan
from dp_assets.privacy.registration import Terms
from dp_assets.privacy.units import PrivacyUnit


def plan_of(level: str, **constants: Any) -> PrivacyPlan:
    """The plan of a level from its constants, those of both mechanisms beside each other."""
    dpsgd = {
        name: constants.pop(name)
        for name in ("sampling_probability", "steps", "spare_steps", "l2_clip_norm", "expected_batch_size")
    }
    votes = VotesPlan(constants.pop("num_bins"), constants.pop("votes_noise_stddev"))
    return make_plan(level, dpsgd=DpSgdPlan(**dpsgd, noise_multiplier=0.0), votes=votes, **constants)


def small_plan(level: str = "eps-8", *, num_bins: int = 8, max_rows_per_unit: int = 2) -> PrivacyPlan:
    return make_plan(
        level,
        delta=1e-5,
        unit=PrivacyUnit.USER,
        max_rows_per_unit=max_rows_per_unit,
        dpsgd=DpSgdPlan(
            sampling_probability=0.25,
            steps=4,
            spare_steps=2,
            l2_clip_norm=0.5,
            noise_multiplier=0.0,
            expected_batch_size=16,
        ),
        votes=VotesPlan(num_bins=num_bins, noise_stddev=4.0),
    )


def small_terms() -> Terms:
    return Terms(
        unit=PrivacyUnit.USER,
        unit_columns="user",
        query="",
        max_rows_per_unit=2,
        cohorts=("all",),
        cohort_function="all",
        delta=1e-5,
        budget_epsilon=8.0,
        is_public=False,
    )
