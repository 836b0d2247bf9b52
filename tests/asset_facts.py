"""What others see of the assets: Dagster's users and tools, runs of earlier versions, and launches by configuration.

`python -m tests.asset_facts` writes the facts of today, for a change that is meant.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import LABEL_METADATA
from resources.storage.stores import COLUMNS_METADATA

STORED = Path(__file__).with_name("fixtures") / "asset_facts.json"


def facts_of(asset: dg.AssetsDefinition) -> dict[str, Any]:
    """The public facts of an asset's definition, as a JSON value."""
    (spec,), (output,), op = asset.specs, asset.op.output_defs, asset.op
    columns = spec.metadata.get(COLUMNS_METADATA)
    return {
        "group": spec.group_name,
        "kinds": sorted(spec.kinds),
        "owners": list(spec.owners),
        "tags": dict(spec.tags),
        "code_version": spec.code_version,
        "metadata": sorted(spec.metadata),
        "label": spec.metadata[LABEL_METADATA],
        "columns": None if columns is None else [f"{column.name} {column.type}" for column in columns.columns],
        "dimensions": [] if spec.partitions_def is None else list(spec.partitions_def.partition_dimension_names),
        "op": op.name,
        "op_tags": dict(op.tags),
        "inputs": [f"{each.name} {each.dagster_type.display_name}" for each in op.input_defs],
        "output": f"{output.name} {output.dagster_type.display_name}",
        "resources": sorted(op.required_resource_keys),
        "config": sorted(getattr(op.config_schema.config_type, "fields", ())),
    }


def facts() -> dict[str, Any]:
    return {asset.key.to_user_string(): facts_of(asset) for asset in ALL_ASSETS}


if __name__ == "__main__":
    STORED.write_text(json.dumps(facts(), indent=2, sort_keys=True) + "\n")
