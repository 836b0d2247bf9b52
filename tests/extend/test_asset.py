"""The example of an asset: its table lies in the released zone, and the decorator gives it its privacy metadata."""

from pathlib import Path

import dagster as dg
import pytest

from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy import metadata
from examples.extend.asset import COLUMNS, instruction_lengths
from tests.assets.one_asset import TEXTS, Workbench
from tests.tiny_pipeline import PARTITION
from tests.toy_graph import SILENT

NAME = "instruction_lengths"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Workbench, dict[str, object]]:
    """The asset, made from filtered instructions that descend from a charge of each mechanism."""
    bench = Workbench(tmp_path, tmp_path / "no model")
    bench.put_filtered()
    run = dg.materialize(
        [*ALL_ASSETS, instruction_lengths],
        selection=[instruction_lengths],
        partition_key=PARTITION,
        resources=bench.resources,
        run_config=SILENT,
    )
    (event,) = run.asset_materializations_for_node(NAME)
    return bench, {key: value.value for key, value in event.metadata.items()}


def test_the_table_has_a_row_for_each_filtered_instruction(made: tuple[Workbench, dict[str, object]]) -> None:
    bench, _ = made
    lengths = bench.table(NAME).collect()
    assert lengths.schema == COLUMNS
    assert lengths["num_words"].to_list() == [len(text.split()) for text in TEXTS[::2]]


def test_the_decorator_adds_lineage_and_both_epsilons(made: tuple[Workbench, dict[str, object]]) -> None:
    bench, shown = made
    assert set(metadata.ARTIFACT_KEYS) <= set(shown)
    assert shown["privacy/label"] == "released"
    assert sorted(bench.table(NAME).charge_ids) == sorted(bench.both)
    assert shown["dagster/row_count"] == len(TEXTS[::2])
    assert shown["mean_words"] == bench.table(NAME).collect()["num_words"].mean()
