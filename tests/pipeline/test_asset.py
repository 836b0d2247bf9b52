"""An asset carries its label wherever Dagster looks for it, and the columns that its table may have."""

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import Table
from dp_assets.corpus.schemas import SCHEMAS
from dp_assets.pipeline.asset import OWNERS, pipeline_asset, table_schema
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label
from resources.storage.stores import COLUMNS_METADATA

COLUMNS = pl.Schema({"text": pl.String(), "vector": pl.Array(pl.Float32(), 3)})


def made(label: Label, name: str = "toy", *, partitioned: bool = True, **settings: pl.Schema) -> dg.AssetsDefinition:
    def function() -> Table:
        """A toy."""
        return Table(pl.LazyFrame({"text": ["a"]}))

    function.__name__ = name
    return pipeline_asset(label=label, group="toys", kinds={"polars"}, partitioned=partitioned, **settings)(function)


@pytest.mark.parametrize("label", list(Label))
def test_the_label_stands_in_tag_metadata_and_op_tag_and_decides_the_owner(label: Label) -> None:
    asset = made(label)
    key = asset.key
    assert asset.tags_by_key[key][TAG] == label
    assert asset.metadata_by_key[key][LABEL_METADATA] == label
    assert asset.op.tags[TAG] == label
    assert list(asset.specs_by_key[key].owners) == [OWNERS[label]]


def test_an_asset_has_the_columns_that_it_names_or_else_the_schema_of_its_name() -> None:
    own, by_name = made(Label.RELEASED, columns=COLUMNS), made(Label.RELEASED, "synthetic_pool")
    assert own.metadata_by_key[own.key][COLUMNS_METADATA] == table_schema(COLUMNS)
    assert by_name.metadata_by_key[by_name.key][COLUMNS_METADATA] == table_schema(SCHEMAS["synthetic_pool"])
    none = made(Label.RELEASED, "of_no_table")
    assert COLUMNS_METADATA not in none.metadata_by_key[none.key]
    assert [column.name for column in table_schema(COLUMNS).columns] == ["text", "vector"]


def test_an_asset_is_partitioned_by_cohort_and_level_unless_it_says_otherwise() -> None:
    assert made(Label.MECHANISM).partitions_def == COHORTS_BY_LEVELS
    assert made(Label.PRIVATE, partitioned=False).partitions_def is None
