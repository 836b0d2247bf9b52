"""A small plan, and the terms it goes with, for tests that need one."""

from dp_assets.privacy.plan import PrivacyPlan, make_plan
from dp_assets.privacy.registration import Terms
from dp_assets.privacy.units import PrivacyUnit


def small_plan(level: str = "eps-8", *, num_bins: int = 8) -> PrivacyPlan:
    return make_plan(
        level=level,
        delta=1e-5,
        unit=PrivacyUnit.USER,
        max_rows_per_unit=2,
        sampling_probability=0.25,
        steps=4,
        spare_steps=2,
        l2_clip_norm=0.5,
        expected_batch_size=16,
        num_bins=num_bins,
        votes_noise_stddev=4.0,
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
