"""The decorator of every asset, so that label, zone, partitions and ownership cannot be forgotten or contradict each
other.

The label stands in three places because Dagster hands out different ones at different times: the tag is what people see
and select by, the definition metadata is what an IO manager sees of an upstream asset, the op tag what it sees of the
reader.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg

from dp_assets.partitions import RELEASES
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label

OWNERS = {Label.PRIVATE: "team:privacy", Label.MECHANISM: "team:privacy", Label.RELEASED: "team:alignment"}


def pipeline_asset(
    *, label: Label, group: str, kinds: set[str], partitioned: bool = True, code_version: str = "1"
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset with its privacy label. Everything from a mechanism down is partitioned by cohort x privacy level."""
    return dg.asset(
        group_name=group,
        kinds=kinds,
        owners=[OWNERS[label]],
        tags={TAG: str(label)},
        op_tags={TAG: str(label)},
        metadata={LABEL_METADATA: str(label)},
        partitions_def=RELEASES if partitioned else None,
        code_version=code_version,
    )
