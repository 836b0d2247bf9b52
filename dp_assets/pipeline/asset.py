"""The decorator of every asset.

With it label, zone, columns, partitions and ownership cannot be forgotten or contradict each other, and every
materialization has its privacy metadata, its provenance and its data version.

A body returns its value and its own figures. The decorator asks Dagster for the context, the ledger and the profile in
addition to what the body asks for. It adds the rest (`pipeline/asset_metadata.py`), whichever IO manager is used.

The label stands in three places because Dagster hands out different ones at different times: the tag is what people see
and select by, the definition metadata is what an IO manager sees of an upstream asset, the op tag what it sees of the
reader. The columns of a table are definition metadata too, which the IO manager compares with what it stores.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_args

import dagster as dg
import polars as pl

from dp_assets.artifacts import PrivateTable, column_types
from dp_assets.corpus.schemas import SCHEMAS
from dp_assets.pipeline.asset_metadata import AssetValue, FiguresOfPublicRows, MadeUnder, materialized, no_figures
from dp_assets.pipeline.partitions import RELEASES
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label
from dp_assets.settings.profile import Profile
from resources.ledger.charging import Ledger
from resources.storage.stores import COLUMNS_METADATA

OWNERS = {Label.PRIVATE: "team:privacy", Label.MECHANISM: "team:privacy", Label.RELEASED: "team:alignment"}

Body = Callable[..., AssetValue[Any] | PrivateTable]
NEEDED = {"context": dg.AssetExecutionContext, "ledger": Ledger, "profile": dg.ResourceParam[Profile]}
"""What the decorator asks of Dagster, whether the body asks for it or not. A context stands first."""


def pipeline_asset(
    *,
    label: Label,
    group: str,
    kinds: set[str],
    partitioned: bool = True,
    code_version: str = "1",
    columns: pl.Schema | None = None,
    of_public_rows: FiguresOfPublicRows = no_figures,
) -> Callable[[Body], dg.AssetsDefinition]:
    """An asset of the pipeline, from a body that returns an `AssetValue`, or a `PrivateTable` if it is private.

    Args:
      label: which side of the boundary the asset lies on.
      group: the stage that Dagster shows it in.
      kinds: the libraries and formats that Dagster shows.
      partitioned: everything from a mechanism down is, by cohort x privacy level.
      code_version: counted up when the meaning of the value changes.
      columns: those of its table, if it makes one; by default the schema of its name. A table is released with exactly
        these.
      of_public_rows: makes figures from the rows of a private asset. It is called only where the owner registered the
        rows' source as public.
    """
    labeled = labeled_asset(
        label=label, group=group, kinds=kinds, partitioned=partitioned, code_version=code_version, columns=columns
    )
    return lambda body: labeled(with_metadata(body, of_public_rows=of_public_rows))


def labeled_asset(
    *,
    label: Label,
    group: str,
    kinds: set[str],
    partitioned: bool = True,
    code_version: str = "1",
    columns: pl.Schema | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset with its label, owner, partitions and columns, from a function that Dagster calls as it stands."""

    def define(function: Callable[..., Any]) -> dg.AssetsDefinition:
        schema = SCHEMAS.get(function.__name__) if columns is None else columns
        declared = {} if schema is None else {COLUMNS_METADATA: table_schema(schema)}
        return dg.asset(
            group_name=group,
            kinds=kinds,
            owners=[OWNERS[label]],
            tags={TAG: str(label)},
            op_tags={TAG: str(label)},
            metadata={LABEL_METADATA: str(label), **declared},
            partitions_def=RELEASES if partitioned else None,
            code_version=code_version,
        )(function)

    return define


def with_metadata(body: Body, *, of_public_rows: FiguresOfPublicRows = no_figures) -> Callable[..., Any]:
    """The body as Dagster calls it: with what `NEEDED` names, and with its value's metadata beside the value."""
    signature = inspect.signature(body, eval_str=True)

    @wraps(body)
    def materialize(context: dg.AssetExecutionContext, **arguments: Any) -> dg.MaterializeResult[Any]:
        ledger, profile = arguments["ledger"], arguments["profile"]
        own_settings = profile.own_digest(context.asset_key.to_user_string())
        given = {"context": context, **arguments}
        returned = body(**{name: given[name] for name in signature.parameters})
        return materialized(
            context,
            returned,
            inputs=arguments.values(),
            under=MadeUnder(ledger, profile, own_settings),
            of_public_rows=of_public_rows,
        )

    seen = _signature_for_dagster(signature)
    hints = {name: parameter.annotation for name, parameter in seen.parameters.items()}
    vars(materialize).update(__signature__=seen)
    materialize.__annotations__ = {**hints, "return": seen.return_annotation}
    return materialize


def _signature_for_dagster(body: inspect.Signature) -> inspect.Signature:
    """The parameters of a body and those that it does not ask for itself; the result is a materialization."""
    further = {
        name: inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
        for name, annotation in NEEDED.items()
        if name not in body.parameters
    }
    parameters = {**further, **body.parameters}
    context = parameters.pop("context")
    value, materialization = next(iter(get_args(body.return_annotation)), body.return_annotation), dg.MaterializeResult
    return inspect.Signature([context, *parameters.values()], return_annotation=materialization[value])


def table_schema(schema: pl.Schema) -> dg.TableSchema:
    """The columns of a table as Dagster shows them and the IO manager compares them."""
    return dg.TableSchema([dg.TableColumn(name, kind) for name, kind in column_types(schema).items()])
