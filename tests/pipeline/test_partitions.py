"""Partitions as people name them: patterns, lists, and what is said of names that do not exist."""

import pytest

from dp_assets.pipeline import partitions
from dp_assets.pipeline.partitions import UnknownPartition, known_partition, matching_partitions
from dp_assets.privacy.labels import NO_DP
from dp_assets.settings.named import selected_profile
from dp_assets.vocabulary import Partition


def levels(*patterns: str) -> list[str]:
    return [one.level for one in matching_partitions(cohorts=["*"], levels=patterns)]


def test_patterns_match_in_their_own_order_and_each_name_once() -> None:
    assert levels("eps-8", "eps-[12]*", "eps-8") == ["eps-8", "eps-1", "eps-2.86"]


def test_the_level_without_noise_is_chosen_by_its_full_name_only() -> None:
    assert NO_DP not in levels("*")
    assert levels(NO_DP) == [NO_DP]


def test_every_chosen_cohort_is_paired_with_every_chosen_level(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cohort": ["bucket-0", "bucket-1"], "level": ["eps-1", "eps-8"]}
    monkeypatch.setattr(partitions, "_names", names.__getitem__)
    chosen = matching_partitions(cohorts=["bucket-?"], levels=["eps-*"])
    assert [one.key for one in chosen] == ["bucket-0|eps-1", "bucket-0|eps-8", "bucket-1|eps-1", "bucket-1|eps-8"]


@pytest.mark.parametrize("cohorts", ["nobody", "bucket-*", ""])
def test_a_pattern_that_matches_nothing_is_refused_with_what_there_is(cohorts: str) -> None:
    with pytest.raises(UnknownPartition, match="it has all"):
        matching_partitions(cohorts=[cohorts], levels=["eps-8"])


def test_a_long_list_of_known_names_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    months = [f"{year}-{month:02}" for year in range(2020, 2026) for month in range(1, 13)]
    monkeypatch.setattr(partitions, "_names", lambda dimension: months)
    with pytest.raises(UnknownPartition, match=r"2020-01, .*, \.\.\., .*, 2025-12 \(72 in all\)") as refusal:
        known_partition("2026-01|eps-8")
    assert len(str(refusal.value)) < 250


def test_a_key_and_its_partition_say_the_same() -> None:
    (level, *_) = selected_profile().corpus.planned_levels
    assert known_partition(f"all|{level}") == Partition("all", level)
    assert Partition("all", level).key == f"all|{level}"
    assert Partition.named(f"all|{level}") == Partition("all", level)
    assert Partition("all", level).path == f"all/{level}"
