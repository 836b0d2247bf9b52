"""Evidence states structure in public, keeps the rest to itself, and satisfies the claim checker of a kept plan."""

import json
import math
from typing import Any

import pytest

from dp_assets.privacy.claim import check_dpsgd, check_votes
from dp_assets.privacy.evidence import Evidence, dpsgd_evidence, fingerprint, votes_evidence
from dp_assets.privacy.plan import DpSgdPlan, VotesPlan
from dp_assets.privacy.randomness import RandomSource, SystemRandomness
from dp_assets.privacy.units import PrivacyUnit
from tests.privacy.replay import ReplayableSource

PLAN = DpSgdPlan(
    sampling_probability=0.1, steps=5, spare_steps=2, l2_clip_norm=0.5, noise_multiplier=1.1, expected_batch_size=8
)


def evidence_of(source: RandomSource, restricted: dict[str, Any], **changes: Any) -> Evidence:
    run: dict[str, Any] = {
        "unit": str(PrivacyUnit.USER),
        "sampling_probability": 0.1,
        "steps": 5,
        "continuations": 1,
        "l2_clip_norm": 0.5,
        "noise_multiplier": 1.1,
        "expected_batch_size": 8,
        "noise_draws": 6,
        "noised_tensors": ["a", "b"],
        "trained_tensors": ["b", "a"],
        "num_parameters": 12,
    }
    return dpsgd_evidence(**(run | changes), source=source, restricted=restricted)


def test_repr_shows_the_public_part_only() -> None:
    shown = repr(evidence_of(SystemRandomness(), {"batch_sizes": [987654]}))
    assert "poisson" in shown
    assert "987654" not in shown


def test_the_public_part_is_json_and_does_not_know_the_restricted_one() -> None:
    first = evidence_of(SystemRandomness(), {"batch_sizes": [1]}).public
    second = evidence_of(SystemRandomness(), {"batch_sizes": [2]}).public
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("value", [math.nan, {1, 2}, object()])
def test_what_json_cannot_say_is_refused_without_being_quoted(value: object) -> None:
    with pytest.raises(ValueError, match=r"Evidence\.public must be JSON") as refusal:
        Evidence(public={"figure": value}, restricted={})
    assert repr(value) not in str(refusal.value)


def test_a_run_that_kept_the_plan_satisfies_the_claim() -> None:
    assert check_dpsgd(PLAN, PrivacyUnit.USER, evidence_of(SystemRandomness(), {}).public) == []


@pytest.mark.parametrize(
    "changes",
    [{"steps": 6}, {"noise_draws": 7}, {"noised_tensors": ["a"]}, {"sampling_probability": 0.2}],
)
def test_a_run_that_left_the_plan_does_not(changes: dict[str, Any]) -> None:
    assert check_dpsgd(PLAN, PrivacyUnit.USER, evidence_of(SystemRandomness(), {}, **changes).public)


def test_no_claim_rests_on_a_source_that_can_be_replayed() -> None:
    assert check_dpsgd(PLAN, PrivacyUnit.USER, evidence_of(ReplayableSource(0), {}).public)
    plan = VotesPlan(num_bins=4, noise_stddev=10.0)
    real = votes_evidence(num_bins=4, noised_bins=4, noise_stddev=10.0, source=SystemRandomness())
    replayed = votes_evidence(num_bins=4, noised_bins=4, noise_stddev=10.0, source=ReplayableSource(0))
    assert check_votes(plan, real.public) == []
    assert check_votes(plan, replayed.public)


def test_a_fingerprint_depends_on_the_names_and_not_on_their_order() -> None:
    assert fingerprint(["a", "b"]) == fingerprint({"b", "a"})
    assert fingerprint(["a", "b"]) != fingerprint(["a", "c"])
    assert fingerprint([])["count"] == 0
