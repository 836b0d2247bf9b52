"""The partitions of mechanisms and of everything made from them: cohort x privacy level."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import dagster as dg

from dp_assets.corpus.cohorts import cohort_names
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import NO_DP
from dp_assets.settings.named import selected_profile
from dp_assets.vocabulary import Partition

STANDARD_LEVELS = ("eps-1", "eps-2.86", "eps-5.94", "eps-8", NO_DP)
LONGEST_LIST = 12
COHORT, LEVEL = "cohort", "level"


class UnknownPartition(PublicError, ValueError):
    """A cohort or a level that this profile does not have."""


def privacy_levels() -> list[str]:
    """Return the standard levels and the planned levels of the profile."""
    return list(dict.fromkeys((*STANDARD_LEVELS, *selected_profile().corpus.planned_levels)))


COHORTS_BY_LEVELS = dg.MultiPartitionsDefinition(
    {
        COHORT: dg.StaticPartitionsDefinition(list(cohort_names(selected_profile().corpus.cohorts))),
        LEVEL: dg.StaticPartitionsDefinition(privacy_levels()),
    }
)


def known_partition(key: str) -> Partition:
    """Return the partition that a key names.

    Raises:
      UnknownPartition: the profile has no such cohort or no such level.
    """
    cohort, bar, level = key.partition("|")
    if not bar:
        raise UnknownPartition(
            f"a partition reads cohort|level, such as {COHORTS_BY_LEVELS.get_first_partition_key()!r}"
        )
    return Partition(_known(COHORT, cohort), _known(LEVEL, level))


def matching_partitions(*, cohorts: Sequence[str], levels: Sequence[str]) -> list[Partition]:
    """Return the partitions whose cohort and level each match one of the patterns, in the order of the patterns.

    A pattern is a name that may contain `*` and `?`. The level without noise must be named in full.

    Raises:
      UnknownPartition: a pattern matches nothing.
    """
    chosen_levels = _chosen(LEVEL, levels)
    return [Partition(cohort, level) for cohort in _chosen(COHORT, cohorts) for level in chosen_levels]


def _chosen(dimension: str, patterns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for pattern in patterns for name in _matches(dimension, pattern)))


def _matches(dimension: str, pattern: str) -> list[str]:
    found = [name for name in _names(dimension) if name != NO_DP and fnmatchcase(name, pattern)]
    return found or [_known(dimension, pattern)]


def _known(dimension: str, name: str) -> str:
    names = _names(dimension)
    if name not in names:
        raise UnknownPartition(f"this profile has no {dimension} {name!r}; it has {_shortened(names)}")
    return name


def _names(dimension: str) -> list[str]:
    return list(COHORTS_BY_LEVELS.get_partitions_def_for_dimension(dimension).get_partition_keys())


def _shortened(names: Sequence[str]) -> str:
    """Return the names as a list in words; of a long list, only the first and the last names."""
    if len(names) <= LONGEST_LIST:
        return ", ".join(names)
    head, tail = names[: LONGEST_LIST // 2], names[-LONGEST_LIST // 2 :]
    return f"{', '.join(head)}, ..., {', '.join(tail)} ({len(names)} in all)"
