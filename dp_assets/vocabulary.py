"""The words that settings and code of several packages share, each stated once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class HasPartitionKey(Protocol):
    """A run of Dagster, as far as it says what it materializes."""

    @property
    def partition_key(self) -> str:
        """The key of the partition, such as `all|eps-8`."""
        ...


@dataclass(frozen=True)
class Partition:
    """One cohort at one privacy level. Its key reads `all|eps-8`; its path has a folder for each."""

    cohort: str
    level: str

    @staticmethod
    def of(context: HasPartitionKey) -> "Partition":
        """The partition that a run materializes."""
        return Partition.named(context.partition_key)

    @staticmethod
    def named(key: str) -> "Partition":
        """The partition of a key such as `all|eps-8`."""
        cohort, level = key.split("|")
        return Partition(cohort, level)

    @property
    def key(self) -> str:
        """The key, such as `all|eps-8`."""
        return f"{self.cohort}|{self.level}"

    @property
    def path(self) -> str:
        """The part of a path that names it."""
        return f"{self.cohort}/{self.level}"


Rule = Literal["smoothed", "paper"]
"""How noisy votes become quotas: see `selection/rules.py`."""

Steering = tuple[Sequence[str], str]
"""What a text is steered by: earlier turns and an opening; both may be empty."""
