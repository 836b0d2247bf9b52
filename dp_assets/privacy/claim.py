"""The claim: check that what ran is what the plan says, or refuse to claim an epsilon.

A mechanism returns evidence of what was observed while it ran. Each named check below compares one item with the plan.
Any difference means that the plan's event does not describe what happened. The caller then fails the asset, adds a
supplementary charge without a bound, and closes the cohort. Even a different number of steps gets no event of its own:
the number may have been chosen from the data, which no event covers, and events are released.

The checks that detect each deviation:

    a fixed-size, shuffled or other sampler               sampler
    a publicly seeded sampler, publicly seeded noise      sampling_randomness, noise_randomness
    instructions sampled where the unit is the user       population
    rows of another cohort or split, or not all rows      population
    units dropped or added after they were sampled        batches, rows_per_sampled_unit
    a run or a step discarded in favor of another         batches
    votes released with the best of several noise draws   noise_randomness
    a unit given another unit's rows                      rows
    a row chosen in view of the rest of the batch         rows
    one step more or less                                 steps, samples_drawn, noise_draws
    an empty batch skipped, or sampled once more          steps, samples_drawn, noise_draws
    a loss averaged over the batch, rows that interact    rounding_slack
    clipping per row or per tensor                        largest_share
    a sum of real rows longer than its clipped gradients  sums
    noise omitted, in part or altogether                  noised_tensors, noise_draws
    noise for each micro-batch                            noise_draws, noised_tensors
    noise shared between tensors                          noise_coordinates, noised_tensors
    noise of another size                                 noise_stddev, noise_size
    noise that repeats, after a resume too                distinct_noise_draws
    noise that another release was made with              noise_of_others
    a normalizer computed from the data                   normalizer, noised_tensors
    a learning rate or a loss computed from the data      constants
    an update by anything but noisy sums                  updates
    a tensor trained without clipping and noise           changed_elsewhere
    a model fitted to the rows beforehand                 changed_elsewhere
    a release that holds more or other values             content
    evidence with items beyond its own                    evidence
    a record with items beyond its own                    record
    a bin without noise, a second vote by a unit          noised_bins, max_votes_per_unit
    units that do not vote because of other units         population, votes
    a vote that follows from other units' rows            votes
    bins moved by the rows that vote for them             bins
    units that changed each other's rows beforehand       preparation

These checks cannot detect a change to the modules that observe, nor chance inside the random source. They guard against
a training loop, a component or a setting that deviates, not against an operator who also rewrites the run monitor.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dp_assets.privacy.evidence import OTHERWISE, WITHIN_SPARE_STEPS, digest_of_names, verdict_on_continuations
from dp_assets.privacy.plan import DpSgdPlan, VotesPlan, largest_batch
from dp_assets.privacy.sampling_and_noise import largest_rounding_slack
from dp_assets.privacy.units import PrivacyUnit

SECURE = "operating-system"
CONFIGURED = "as configured"
DESCRIPTIONS = ("noise_coordinates", "trained_tensors", "num_parameters")  # compared with each other, not with the plan
STEP_COUNTS = ("steps", "samples_drawn", "noise_draws", "distinct_noise_draws")


class ClaimRefused(ValueError):
    """The run differs from the plan, so no epsilon is claimed for it."""


@dataclass(frozen=True)
class Discrepancy:
    """One difference between plan and run.

    Names and verdicts of what ran are public. Its numbers may follow from private rows (a normalizer that was a batch
    size), so only `in_full`, which goes to the ledger, states them.
    """

    check: str
    planned: Any
    ran: Any

    def __str__(self) -> str:
        ran = repr(self.ran) if isinstance(self.ran, str) else "otherwise"
        return f"{self.check}: planned {self.planned!r}, ran {ran}"

    @property
    def in_full(self) -> str:
        """The difference with its numbers, for the private zone."""
        return f"{self.check}: planned {self.planned!r}, ran {self.ran!r}"


def discrepancies(expected: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Return every expected item that the evidence lacks or contradicts."""
    return [
        Discrepancy(name, planned, evidence.get(name))
        for name, planned in expected.items()
        if evidence.get(name) != planned
    ]


def excesses(largest: Mapping[str, float], evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Return every item that is not a number between zero and its largest allowed value."""
    return [
        Discrepancy(name, f"at most {bound:g}", evidence.get(name))
        for name, bound in largest.items()
        if not _is_within(evidence.get(name), bound)
    ]


def further_items(known: Collection[str], evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Refuse items of evidence beyond the known ones. Evidence is published, so it must not carry anything else."""
    return [] if set(evidence) <= set(known) else [Discrepancy("evidence", "nothing but its own items", OTHERWISE)]


def check_dpsgd(plan: DpSgdPlan, unit: PrivacyUnit, evidence: Mapping[str, Any], *, delta: float) -> list[Discrepancy]:
    """Compare a DP-SGD run with its plan. A run may be resumed as often as the plan has spare steps.

    `delta` bounds the number of units, and so the size of a batch over which rounding errors may add up.
    """
    evidence = without_number_of_continuations(plan, evidence)
    draws, num_parameters = evidence.get("noise_draws"), evidence.get("num_parameters")
    coordinates = draws * num_parameters if isinstance(draws, int) and isinstance(num_parameters, int) else None
    expected = {
        "mechanism": "dpsgd",
        "unit": str(unit),
        "preparation": unit.preparation,
        "population": "units",
        "sampler": "poisson",
        "sampling_probability": plan.sampling_probability,
        "sampling_randomness": SECURE,
        "batches": "as drawn",
        "rows": "of their units",
        "sums": "within the clip",
        "rows_per_sampled_unit": 1,
        "l2_clip_norm": plan.l2_clip_norm,
        "noise": "gaussian",
        "noise_stddev": plan.noise_multiplier * plan.l2_clip_norm,
        "noise_randomness": SECURE,
        "noise_size": "as stated",
        "normaliser": plan.expected_batch_size,
        **dict.fromkeys(STEP_COUNTS, plan.steps),
        "noised_tensors": evidence.get("trained_tensors", "some"),
        "updates": "of noisy sums alone",
        "constants": CONFIGURED,
        "changed_elsewhere": digest_of_names(()),
        "continuations": WITHIN_SPARE_STEPS,
    }
    largest = probe_limits(largest_batch(plan, delta=delta))
    differences = discrepancies(expected, evidence) + excesses(largest, evidence)
    differences += further_items({*expected, *largest, *DESCRIPTIONS}, evidence)
    if coordinates is None or evidence.get("noise_coordinates") != coordinates:
        differences.append(
            Discrepancy("noise_coordinates", "each parameter in each draw", evidence.get("noise_coordinates"))
        )
    return differences


def probe_limits(largest_batch: float) -> dict[str, float]:
    """Return the limits for the sensitivity probe: no clipped gradient beyond the clip norm, and limited rounding."""
    return {"largest_share": 1.0, "rounding_slack": largest_rounding_slack(largest_batch)}


def without_number_of_continuations(plan: DpSgdPlan, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the evidence with a verdict on continuations, where an earlier version recorded their number."""
    continuations = evidence.get("continuations")
    if type(continuations) is not int:
        return evidence
    return {**evidence, "continuations": verdict_on_continuations(continuations, plan.spare_steps)}


def check_votes(plan: VotesPlan, unit: PrivacyUnit, evidence: Mapping[str, Any]) -> list[Discrepancy]:
    """Compare a release of noisy votes with its plan."""
    expected = {
        "mechanism": "votes",
        "preparation": unit.preparation,
        "population": "units",
        "max_votes_per_unit": 1,
        "votes": "of each unit alone",
        "votes_counted": "one a ballot",
        "bins": "as stored",
        "num_bins": plan.num_bins,
        "noise": "discrete-gaussian",
        "noise_stddev": plan.noise_stddev,
        "noise_randomness": SECURE,
        "noise_coordinates": plan.num_bins,
        "noised_bins": plan.num_bins,
    }
    return discrepancies(expected, evidence) + further_items(expected, evidence)


def check_record(
    known: Collection[str], said: Mapping[str, Any], made_anew: Mapping[str, Any] | None
) -> list[Discrepancy]:
    """Refuse a record with unknown items, or with values that are not one number or text.

    One that differs from `made_anew`, the record computed again, is refused too.
    """
    is_plain = all(value is None or isinstance(value, int | float | str) for value in said.values())
    is_as_made = made_anew is None or said == made_anew
    return (
        []
        if set(said) <= set(known) and is_plain and is_as_made
        else [Discrepancy("record", "its own items", OTHERWISE)]
    )


def check_content(observed: Any, stored: str) -> list[Discrepancy]:
    """Compare the hash of a release's content with the hash of what was observed."""
    return [] if observed == stored else [Discrepancy("content", "as observed", OTHERWISE)]


def check_noise_of_others(is_new: bool) -> list[Discrepancy]:
    """Refuse noise that another release shares: the difference of the two releases would reveal what it hides."""
    return [] if is_new else [Discrepancy("noise_of_others", "for this release alone", OTHERWISE)]


def _is_within(value: Any, bound: float) -> bool:
    return isinstance(value, int | float) and 0 <= value <= bound
