"""A mechanism: one vote a unit for a topic of a public list, and noise on every topic.

sensitivity   one unit changes the exact votes of one topic by one: L2 sensitivity 1 under add-or-remove-one
event         `plan.votes.event`: one discrete Gaussian release, as for `NoisyVotes`, which it can stand in for
checks        `check_votes` compares what ran with the plan
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import polars as pl

from dp_assets.artifacts import OpenableCharge, PrivateTable, Table, content_digest
from dp_assets.privacy.claim import Discrepancy, check_votes
from dp_assets.privacy.evidence import CountedVotes, Evidence, votes_evidence
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import HISTOGRAM, PrivacyPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, noise_draws, noisy_votes


class OtherNumberOfTopics(ValueError):
    """The plan is for another number of topics. Both numbers are public."""


@dataclass(frozen=True)
class TopicVotes:
    """The noisy votes of one privacy level, over one private table of instructions.

    Args:
      plan: what is charged, and what the evidence is compared with.
      table: the private rows, with `unit_id`, `instruction_id` and `text`.
      topics: a public word for each topic. A text that holds none of them is about the last one.
    """

    name: ClassVar[str] = HISTOGRAM

    plan: PrivacyPlan
    table: PrivateTable
    topics: tuple[str, ...]

    def require_ready(self) -> None:
        """Find what is wrong without private rows, before anything is charged.

        Raises:
          OtherNumberOfTopics: the plan is for another number of topics.
        """
        if len(self.topics) != self.plan.votes.num_bins:
            raise OtherNumberOfTopics(f"votes.num_bins is {self.plan.votes.num_bins}, topics are {len(self.topics)}")

    def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
        """The noisy votes for the topics, one row a topic, with the evidence of the release."""
        noise = DiscreteGaussianNoise(noise_stddev=self.plan.votes.noise_stddev, source=SystemRandomness())
        drawn_before = noise_draws()
        ballots = self._ballots(self.table.open(charge))  # from here on the charge is spent, whatever happens
        exact = np.bincount([topic for _, topic in ballots], minlength=len(self.topics)).astype(np.int64)
        released = noisy_votes(exact, noise)
        recounted = self._recounted(self.table.as_stored(charge).select("unit_id", "instruction_id", "text").collect())
        counted = CountedVotes(
            exact,
            ballots,
            is_everybody={unit for unit, _ in ballots} == set(recounted),
            are_own=all(recounted.get(unit) == topic for unit, topic in ballots),
            are_stored_bins=True,  # the topics are constants of this code
        )
        evidence = votes_evidence(
            counted,
            released,
            noise,
            is_only_draw=noise_draws() - drawn_before == 1,
            preparation=self.table.preparation,
        )
        observed = content_digest(_votes(exact + noise.last_draw))
        return _votes(released), replace(evidence, content=observed)

    def check(self, evidence: Mapping[str, Any]) -> list[Discrepancy]:
        """Every difference between what ran and the plan."""
        return check_votes(self.plan.votes, self.plan.unit, evidence)

    def can_resume(self, record: ChargeRecord) -> bool:
        """Never: a count that was interrupted left nothing to go on from."""
        return False

    def describe(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing besides the evidence."""
        return {}

    def _ballots(self, rows: pl.LazyFrame) -> list[tuple[str, int]]:
        """One vote a unit, that of its row with the first id."""
        first = rows.sort("instruction_id").group_by("unit_id").agg(pl.col("text").first()).collect()
        return [(unit, self._topic(text)) for unit, text in first.select("unit_id", "text").iter_rows()]

    def _recounted(self, rows: pl.DataFrame) -> dict[str, int]:
        """The votes once more, by other code."""
        texts: dict[str, tuple[str, str]] = {}
        for unit, row, text in rows.iter_rows():
            texts[unit] = min(texts.get(unit, (row, text)), (row, text))
        return {unit: self._topic(text) for unit, (_, text) in texts.items()}

    def _topic(self, text: str) -> int:
        words = text.lower().split()
        named: Iterable[int] = (number for number, word in enumerate(self.topics) if word in words)
        return next(iter(named), len(self.topics) - 1)


def _votes(noisy: np.ndarray[Any, np.dtype[np.int64]]) -> Table:
    return Table(pl.LazyFrame({"bin_id": np.arange(len(noisy), dtype=np.int64), "noisy_votes": noisy}))
