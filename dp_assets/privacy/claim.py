"""Claim or refuse: whether what ran is what the plan says.

A mechanism returns evidence of its structure: the sampler, the steps, the tensors it trained and noised, the
normaliser. Each named check below compares one item with the plan. Any difference means that the plan's event does not
describe what happened, so the caller fails the asset, adds a supplementary charge without a bound, and closes the
cohort.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dp_assets.privacy.plan import DpSgdPlan, VotesPlan
from dp_assets.privacy.units import PrivacyUnit

SECURE = "operating-system"


class ClaimRefused(ValueError):
    """What ran differs from the plan, so no epsilon is claimed for it."""


@dataclass(frozen=True)
class Discrepancy:
    """One difference between plan and run; both values are public."""

    check: str
    planned: Any
    ran: Any

    def __str__(self) -> str:
        return f"{self.check}: planned {self.planned!r}, ran {self.ran!r}"


def discrepancies(expected: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Every expected item that the evidence lacks or contradicts."""
    return [
        Discrepancy(name, planned, evidence.get(name))
        for name, planned in expected.items()
        if evidence.get(name) != planned
    ]


def check_dpsgd(plan: DpSgdPlan, unit: PrivacyUnit, evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Compare a DP-SGD run with its plan. A resumed run may have drawn noise once more for each continuation."""
    claimed = evidence.get("continuations")
    continuations = claimed if isinstance(claimed, int) and 0 <= claimed <= plan.spare_steps else 0
    expected = {
        "mechanism": "dpsgd",
        "sampler": "poisson",
        "unit": str(unit),
        "rows_per_sampled_unit": 1,
        "sampling_probability": plan.sampling_probability,
        "l2_clip_norm": plan.l2_clip_norm,
        "noise_multiplier": plan.noise_multiplier,
        "normaliser": plan.expected_batch_size,
        "loss_reduction": "sum",
        "steps": plan.steps + continuations,
        "noise_draws": plan.steps + continuations,
        "randomness": SECURE,
    }
    found = discrepancies(expected, evidence)
    if claimed != continuations:
        found.append(Discrepancy("continuations", f"at most {plan.spare_steps}", claimed))
    if not evidence.get("trained_tensors") or evidence.get("trained_tensors") != evidence.get("noised_tensors"):
        found.append(Discrepancy("noised_tensors", evidence.get("trained_tensors"), evidence.get("noised_tensors")))
    return found


def check_votes(plan: VotesPlan, evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Compare a release of noisy votes with its plan."""
    expected = {
        "mechanism": "votes",
        "num_bins": plan.num_bins,
        "noised_bins": plan.num_bins,
        "noise_stddev": plan.noise_stddev,
        "max_votes_per_unit": 1,
        "randomness": SECURE,
    }
    return discrepancies(expected, evidence)
