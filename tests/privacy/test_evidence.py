"""Evidence states what was observed, keeps the rest to itself, and satisfies the claim checker of a kept plan."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dp_assets.privacy.claim import CONFIGURED, check_dpsgd, check_votes
from dp_assets.privacy.evidence import (
    CountedVotes,
    Evidence,
    ObservedTraining,
    digest_of_names,
    dpsgd_evidence,
    noise_size,
    votes_evidence,
)
from dp_assets.privacy.plan import DpSgdPlan, VotesPlan
from dp_assets.privacy.randomness import RandomSource, SystemRandomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise, PoissonSampler
from dp_assets.privacy.units import PrivacyUnit
from tests.privacy.replay import ReplayableSource

PLAN = DpSgdPlan(
    sampling_probability=0.1, steps=5, spare_steps=2, l2_clip_norm=0.5, noise_multiplier=1.1, expected_batch_size=8
)
VOTES_PLAN = VotesPlan(num_bins=4, noise_stddev=10.0)
UNIT = PrivacyUnit.USER
NUM_PARAMETERS = 200
DELTA = 1e-5


def evidence_of(source: RandomSource, restricted: dict[str, Any], **changes: Any) -> Evidence:
    """The evidence of five steps on 200 parameters, from a real sampler and real noise."""
    sampler = PoissonSampler(sampling_probability=0.1, source=source)
    noise = GaussianNoise(noise_stddev=1.1 * 0.5, source=source)
    energy = 0.0
    for _ in range(PLAN.steps):
        sampler.draw(["a", "b"])
        energy += float((noise.draw(NUM_PARAMETERS) ** 2).sum())
    observed: dict[str, Any] = {
        "steps": 5,
        "batches_as_drawn": True,
        "rows_of_their_units": True,
        "sums_within_clip": True,
        "most_rows_per_unit": 1,
        "l2_clip_norms": [0.5],
        "largest_share": 0.99999,
        "rounding_slack": 1e-9,
        "normalizers": [8],
        "noise_energy": energy,
        "noised_tensors": ["a", "b"],
        "updates_repeated": True,
        "trained_tensors": ["b", "a"],
        "changed_elsewhere": [],
        "num_parameters": NUM_PARAMETERS,
        "learning_rate": 0.1,
        "loss_normalizers": [16.0],
    }
    others = {"unit": str(UNIT), "continuations": 1, "spare_steps": 2}
    others = {name: changes.pop(name, value) for name, value in others.items()}
    training = ObservedTraining(**(observed | changes))
    evidence = dpsgd_evidence(training, sampler, noise, **others, restricted=restricted)
    return evidence.also(preparation="user-wise", population="units", constants=CONFIGURED)


def votes_of(source: RandomSource, **changes: Any) -> Evidence:
    noise = DiscreteGaussianNoise(noise_stddev=10.0, source=source)
    exact = np.array([2, 0, 1, 0], dtype=np.int64)
    counted: dict[str, Any] = {
        "exact": exact,
        "ballots": [("a", 0), ("b", 0), ("c", 2)],
        "is_everybody": True,
        "are_own": True,
        "are_stored_bins": True,
    }
    released: dict[str, Any] = {
        "released": exact + noise.draw(4),
        "noise": noise,
        "is_only_draw": True,
        "preparation": "user-wise",
    }
    counted |= {name: changes[name] for name in counted.keys() & changes}
    released |= {name: changes[name] for name in released.keys() & changes}
    assert changes.keys() <= counted.keys() | released.keys()
    return votes_evidence(CountedVotes(**counted), **released)


def test_repr_shows_the_public_part_only() -> None:
    shown = repr(evidence_of(SystemRandomness(), {"batch_sizes": [987654]}))
    assert "poisson" in shown
    assert "987654" not in shown


def test_the_public_part_is_json_and_does_not_know_the_restricted_one() -> None:
    first = evidence_of(SystemRandomness(), {"batch_sizes": [1]}).public
    second = evidence_of(SystemRandomness(), {"batch_sizes": [2]}).public
    assert json.dumps(first) == json.dumps(second)


def test_the_public_part_does_not_know_the_votes() -> None:
    nobody = np.zeros(4, dtype=np.int64)
    noise = DiscreteGaussianNoise(noise_stddev=10.0, source=SystemRandomness())
    empty = votes_of(SystemRandomness(), exact=nobody, released=nobody + noise.draw(4), ballots=[], noise=noise)
    assert json.dumps(empty.public) == json.dumps(votes_of(SystemRandomness()).public)


@pytest.mark.parametrize("value", [math.nan, {1, 2}, object()])
def test_what_json_cannot_say_is_refused_without_being_quoted(value: object) -> None:
    with pytest.raises(ValueError, match=r"Evidence\.public must be JSON") as refusal:
        Evidence(public={"figure": value}, restricted={})
    assert repr(value) not in str(refusal.value)


def test_a_run_that_kept_the_plan_satisfies_the_claim() -> None:
    assert check_dpsgd(PLAN, UNIT, evidence_of(SystemRandomness(), {}).public, delta=DELTA) == []
    assert check_votes(VOTES_PLAN, UNIT, votes_of(SystemRandomness()).public) == []


@pytest.mark.parametrize(
    ("changes", "caught_by"),
    [
        ({"steps": 6}, "steps"),
        ({"continuations": 3}, "continuations"),
        ({"batches_as_drawn": False}, "batches"),
        ({"rows_of_their_units": False}, "rows"),
        ({"sums_within_clip": False}, "sums"),
        ({"updates_repeated": False}, "updates"),
        ({"most_rows_per_unit": 2}, "rows_per_sampled_unit"),
        ({"l2_clip_norms": [0.5, 0.6]}, "l2_clip_norm"),
        ({"largest_share": 1.0001}, "largest_share"),
        ({"rounding_slack": 0.01}, "rounding_slack"),
        ({"normalizers": [9]}, "normaliser"),
        ({"normalizers": []}, "normaliser"),
        ({"noise_energy": 0.0}, "noise_size"),
        ({"noised_tensors": ["a"]}, "noised_tensors"),
        ({"trained_tensors": ["a", "b", "c"]}, "noised_tensors"),
        ({"changed_elsewhere": ["embedding"]}, "changed_elsewhere"),
        ({"num_parameters": NUM_PARAMETERS + 1}, "noise_coordinates"),
    ],
)
def test_a_run_that_left_the_plan_does_not(changes: dict[str, Any], caught_by: str) -> None:
    found = check_dpsgd(PLAN, UNIT, evidence_of(SystemRandomness(), {}, **changes).public, delta=DELTA)
    assert caught_by in {item.check for item in found}


@pytest.mark.parametrize(
    ("changes", "caught_by"),
    [
        ({"ballots": [("a", 0), ("a", 2), ("b", 0)]}, "max_votes_per_unit"),
        ({"ballots": [("a", 0), ("b", 0)]}, "votes_counted"),
        ({"ballots": [("a", 0), ("b", 1), ("c", 2)]}, "votes_counted"),
        ({"is_everybody": False}, "population"),
        ({"are_own": False}, "votes"),
        ({"are_stored_bins": False}, "bins"),
        ({"released": np.array([2, 0, 1, 0])}, "noised_bins"),
        ({"released": np.array([2, 0, 1])}, "num_bins"),
        ({"preparation": "across units"}, "preparation"),
    ],
)
def test_votes_that_left_the_plan_do_not(changes: dict[str, Any], caught_by: str) -> None:
    source = ReplayableSource(4)  # whose four draws are not zero
    assert caught_by in {item.check for item in check_votes(VOTES_PLAN, UNIT, votes_of(source, **changes).public)}


def test_no_claim_rests_on_a_source_that_can_be_replayed() -> None:
    refused = check_dpsgd(PLAN, UNIT, evidence_of(ReplayableSource(0), {}).public, delta=DELTA)
    assert {item.check for item in refused} == {"sampling_randomness", "noise_randomness"}
    assert [item.check for item in check_votes(VOTES_PLAN, UNIT, votes_of(ReplayableSource(0)).public)] == [
        "noise_randomness"
    ]


@pytest.mark.parametrize("scale", [0.0, 0.9, 1.1, 2.0])
def test_noise_of_another_size_is_told(scale: float) -> None:
    coordinates = 20_000
    noise = GaussianNoise(noise_stddev=3.0, source=SystemRandomness()).draw(coordinates)
    energy = float((noise**2).sum())
    assert noise_size(energy, coordinates, noise_stddev=3.0) == "as stated"
    assert noise_size(scale**2 * energy, coordinates, noise_stddev=3.0) == "otherwise"


@pytest.mark.parametrize("coordinates", [1, 10, 1_000, 1_000_000])
def test_fair_noise_is_called_another_size_once_in_a_trillion_runs(coordinates: int) -> None:
    for quantile in (stats.chi2.ppf(5e-13, coordinates), stats.chi2.isf(5e-13, coordinates)):
        assert noise_size(quantile, coordinates, noise_stddev=1.0) == "as stated"


def test_a_fingerprint_depends_on_the_names_and_not_on_their_order() -> None:
    assert digest_of_names(["a", "b"]) == digest_of_names({"b", "a"})
    assert digest_of_names(["a", "b"]) != digest_of_names(["a", "c"])
    assert digest_of_names([])["count"] == 0
