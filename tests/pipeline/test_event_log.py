"""What was made for another data folder under the same instance is passed over."""

from collections.abc import Iterator

import dagster as dg
import pytest

from dp_assets.pipeline.event_log import RECORDS_AT_A_TIME, latest, recorded
from dp_assets.privacy.metadata import CORPUS

KEY, OURS, OTHERS = dg.AssetKey("pool"), "ours", "others"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def note(instance: dg.DagsterInstance, corpus: str | None, number: int, partition: str | None = None) -> None:
    metadata = {"number": number} | ({} if corpus is None else {CORPUS: corpus})
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata=metadata, partition=partition))


def found(instance: dg.DagsterInstance, partition: str | None = None, key: dg.AssetKey = KEY) -> int | None:
    record = latest(instance, key, partition, [OURS])
    return None if record is None else recorded(record, "number")


def test_the_newest_of_our_own_is_found_behind_any_number_of_others(instance: dg.DagsterInstance) -> None:
    for number in (1, 2):
        note(instance, OURS, number)
    for number in range(RECORDS_AT_A_TIME + 5):
        note(instance, OTHERS, number)
    assert found(instance) == 2


def test_where_only_others_made_it_nothing_is_found(instance: dg.DagsterInstance) -> None:
    note(instance, OTHERS, 1)
    assert found(instance) is None
    assert found(instance, key=dg.AssetKey("another")) is None


def test_what_an_earlier_version_made_counts_though_it_names_no_corpus(instance: dg.DagsterInstance) -> None:
    note(instance, OURS, 1)
    note(instance, None, 2)
    assert found(instance) == 2


def test_partitions_are_told_apart(instance: dg.DagsterInstance) -> None:
    note(instance, OURS, 1, "a")
    note(instance, OURS, 2, "b")
    assert (found(instance, "a"), found(instance, "b")) == (1, 2)
