"""The partitions of everything below a mechanism: cohort x privacy level."""

from dataclasses import dataclass

import dagster as dg

from dp_assets.corpus.cohorts import cohort_names
from dp_assets.privacy.labels import NO_DP
from dp_assets.profiles import selected_profile

STANDARD_LEVELS = ("eps-1", "eps-2.86", "eps-5.94", "eps-8", NO_DP)


def privacy_levels() -> list[str]:
    """The standard levels and those that the profile plans."""
    return list(dict.fromkeys((*STANDARD_LEVELS, *selected_profile().corpus.planned_levels)))


RELEASES = dg.MultiPartitionsDefinition(
    {
        "cohort": dg.StaticPartitionsDefinition(list(cohort_names(**selected_profile().corpus.cohorts.model_dump()))),
        "level": dg.StaticPartitionsDefinition(privacy_levels()),
    }
)


@dataclass(frozen=True)
class Partition:
    """One cohort at one privacy level."""

    cohort: str
    level: str

    @staticmethod
    def of(context: dg.AssetExecutionContext) -> "Partition":
        """The partition that a run materializes."""
        cohort, level = context.partition_key.split("|")
        return Partition(cohort, level)
