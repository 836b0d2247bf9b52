"""Each difference between plan and run is caught by a named check, which says no number that may be private."""

from typing import Any

import pytest

from dp_assets.privacy.claim import Discrepancy, check_dpsgd, check_votes
from dp_assets.privacy.evidence import digest_of_names
from dp_assets.privacy.sampling_and_noise import ROUNDING_MARGIN, largest_rounding_slack
from tests.privacy.plans import small_plan

PLAN = small_plan()
TENSORS = digest_of_names(["a", "b"])
HONEST: dict[str, Any] = {
    "mechanism": "dpsgd",
    "unit": "user",
    "preparation": "user-wise",
    "population": "units",
    "sampler": "poisson",
    "sampling_probability": 0.25,
    "sampling_randomness": "operating-system",
    "samples_drawn": 4,
    "batches": "as drawn",
    "rows": "of their units",
    "sums": "within the clip",
    "rows_per_sampled_unit": 1,
    "l2_clip_norm": 0.5,
    "largest_share": 0.99999,
    "rounding_slack": 1e-9,
    "noise": "gaussian",
    "noise_stddev": PLAN.dpsgd.noise_multiplier * 0.5,
    "noise_randomness": "operating-system",
    "noise_draws": 4,
    "distinct_noise_draws": 4,
    "noise_coordinates": 40,
    "noise_size": "as stated",
    "normaliser": 16,
    "steps": 4,
    "continuations": "within the spare steps",
    "noised_tensors": TENSORS,
    "trained_tensors": TENSORS,
    "updates": "of noisy sums alone",
    "constants": "as configured",
    "changed_elsewhere": digest_of_names([]),
    "num_parameters": 10,
}
HONEST_VOTES: dict[str, Any] = {
    "mechanism": "votes",
    "preparation": "user-wise",
    "population": "units",
    "max_votes_per_unit": 1,
    "votes": "of each unit alone",
    "votes_counted": "one a ballot",
    "bins": "as stored",
    "num_bins": 8,
    "noise": "discrete-gaussian",
    "noise_stddev": 4.0,
    "noise_randomness": "operating-system",
    "noise_coordinates": 8,
    "noised_bins": 8,
}
# An item of which a difference is seen in another one.
SEEN_ELSEWHERE = {"trained_tensors": "noised_tensors", "num_parameters": "noise_coordinates"}


def found_in(**changed: Any) -> list[Discrepancy]:
    return check_dpsgd(PLAN.dpsgd, PLAN.unit, HONEST | changed, delta=PLAN.delta)


def checks_of(**changed: Any) -> set[str]:
    return {found.check for found in found_in(**changed)}


def test_an_honest_run_passes() -> None:
    assert checks_of() == set()
    assert checks_of(continuations=2) == set()
    assert check_votes(PLAN.votes, PLAN.unit, HONEST_VOTES) == []


@pytest.mark.parametrize("item", HONEST)
@pytest.mark.parametrize("value", [None, "other", 7])
def test_every_item_of_the_evidence_of_a_training_is_checked(item: str, value: Any) -> None:
    assert SEEN_ELSEWHERE.get(item, item) in checks_of(**{item: value})


def test_the_slack_that_is_allowed_for_is_that_of_the_largest_batch_and_not_of_the_expected_one() -> None:
    """Such that the roundings of a mean batch of as many units as delta allows for just exceed their half margin."""
    units = 0.1 / PLAN.delta
    slack = 1.01 * ROUNDING_MARGIN / 2 / (PLAN.dpsgd.sampling_probability * units)
    assert slack < largest_rounding_slack(PLAN.dpsgd.expected_batch_size) / 100
    assert checks_of(rounding_slack=slack) == {"rounding_slack"}


@pytest.mark.parametrize("item", HONEST_VOTES)
@pytest.mark.parametrize("value", [None, "other", 7])
def test_every_item_of_the_evidence_of_votes_is_checked(item: str, value: Any) -> None:
    found = check_votes(PLAN.votes, PLAN.unit, HONEST_VOTES | {item: value})
    assert [one.check for one in found] == [item]


@pytest.mark.parametrize(
    "changed",
    [
        {"largest_share": 1.00001},
        {"rounding_slack": 0.002},
        {"continuations": 3},
        {"continuations": -1},
        {"continuations": True},
    ],
)
def test_an_item_beyond_its_bound_is_caught(changed: dict[str, Any]) -> None:
    assert checks_of(**changed) == set(changed)


def test_missing_evidence_is_a_difference() -> None:
    found = {item.check for item in check_dpsgd(PLAN.dpsgd, PLAN.unit, {}, delta=PLAN.delta)}
    assert found == HONEST.keys() - SEEN_ELSEWHERE.keys()
    assert {item.check for item in check_votes(PLAN.votes, PLAN.unit, {})} == HONEST_VOTES.keys()


def test_a_refusal_names_names_and_verdicts_but_no_numbers_of_the_run() -> None:
    (normalizer,) = found_in(normaliser=4711)
    assert "4711" not in str(normalizer)
    assert "4711" in normalizer.in_full
    (sampler,) = found_in(sampler="foreign Shuffled")
    assert str(sampler) == "sampler: planned 'poisson', ran 'foreign Shuffled'"
