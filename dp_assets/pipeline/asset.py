"""The decorator of every asset.

It declares label, zone, columns, partitions and owner together, so that none is missing and none contradicts another.
Every materialization gets its privacy metadata, its provenance and its data version.

A body returns its value and its own figures. The decorator requests the context, the ledger and the profile from
Dagster, whether or not the body requests them. It adds the metadata (`pipeline/asset_metadata.py`) with every IO
manager.

The label is stored three times, because Dagster exposes different parts of a definition:

- the tag: people see it and select by it,
- the definition metadata: an IO manager sees those of an upstream asset,
- the op tag: an IO manager sees that of the asset that reads.

The columns of a table are definition metadata too. The IO manager compares them with what it stores.
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
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
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
    """Return a decorator that makes an asset from a body.

    The body of a private asset returns a `PrivateTable`, any other an `AssetValue`.

    Args:
      label: the side of the privacy boundary on which the asset lies.
      group: the stage under which Dagster shows the asset.
      kinds: the libraries and formats that Dagster shows.
      partitioned: whether the asset is partitioned by cohort x privacy level, as mechanisms and what follows them are.
      code_version: to be increased when the meaning of the value changes.
      columns: the columns of the asset's table, if it makes one; by default the schema of that name. A table is
        released with exactly these columns.
      of_public_rows: computes figures from the rows of a private asset. It is called only if the owner registered the
        source of the rows as public.
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
    """Return a decorator that adds label, owner, partitions and columns to a function, which Dagster calls unchanged.

    Args:
      label: the side of the privacy boundary on which the asset lies.
      group: the stage under which Dagster shows the asset.
      kinds: the libraries and formats that Dagster shows.
      partitioned: whether the asset is partitioned by cohort x privacy level.
      code_version: to be increased when the meaning of the value changes.
      columns: the columns of the asset's table, if it makes one; by default the schema of that name.
    """

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
            partitions_def=COHORTS_BY_LEVELS if partitioned else None,
            code_version=code_version,
        )(function)

    return define


def with_metadata(body: Body, *, of_public_rows: FiguresOfPublicRows = no_figures) -> Callable[..., Any]:
    """Return a function for Dagster that calls the body and returns its value with the metadata of the materialization.

    The function takes the parameters of the body and those that `NEEDED` names.
    """
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
    """Return the signature of a body, extended by the missing parameters of `NEEDED`; it returns a materialization."""
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
    """Return the columns of a table in the form that Dagster shows and the IO manager compares."""
    return dg.TableSchema([dg.TableColumn(name, kind) for name, kind in column_types(schema).items()])
