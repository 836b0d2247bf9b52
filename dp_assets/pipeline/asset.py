"""The decorator of every asset.

With it label, zone, columns, partitions and ownership cannot be forgotten or contradict each other.

The label stands in three places because Dagster hands out different ones at different times: the tag is what people see
and select by, the definition metadata is what an IO manager sees of an upstream asset, the op tag what it sees of the
reader. The columns of a table are definition metadata too, which the IO manager compares with what it stores.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import column_types
from dp_assets.corpus.schemas import SCHEMAS
from dp_assets.pipeline.partitions import RELEASES
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label
from resources.storage.stores import COLUMNS_METADATA

OWNERS = {Label.PRIVATE: "team:privacy", Label.MECHANISM: "team:privacy", Label.RELEASED: "team:alignment"}


def pipeline_asset(
    *,
    label: Label,
    group: str,
    kinds: set[str],
    partitioned: bool = True,
    code_version: str = "1",
    columns: pl.Schema | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset with its privacy label. Everything from a mechanism down is partitioned by cohort x privacy level.

    `columns` are those of its table, if it makes one; by default the schema of its name. A table is released with
    exactly these.
    """

    def define(function: Callable[..., Any]) -> dg.AssetsDefinition:
        schema = SCHEMAS.get(function.__name__) if columns is None else columns
        made = {} if schema is None else {COLUMNS_METADATA: table_schema(schema)}
        return dg.asset(
            group_name=group,
            kinds=kinds,
            owners=[OWNERS[label]],
            tags={TAG: str(label)},
            op_tags={TAG: str(label)},
            metadata={LABEL_METADATA: str(label), **made},
            partitions_def=RELEASES if partitioned else None,
            code_version=code_version,
        )(function)

    return define


def table_schema(schema: pl.Schema) -> dg.TableSchema:
    """The columns of a table as Dagster shows them and the IO manager compares them."""
    return dg.TableSchema([dg.TableColumn(name, kind) for name, kind in column_types(schema).items()])
