"""A registered tiny corpus on which assets are materialized, and what a failed run says."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.artifacts import UNKNOWN_PREPARATION
from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.synthetic_bins import synthetic_bins
from dp_assets.assets.synthetic_embeddings import synthetic_embeddings
from dp_assets.assets.synthetic_pool import synthetic_pool
from resources.storage.adapter_io import PROVENANCE_FILE
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources, write_corpus

STORED = "data/private/artifacts"


class Corpus:
    """A registered tiny corpus and its resources."""

    def __init__(self, home: Path, model: Path) -> None:
        profile = tiny_profile(write_corpus(home / "corpus.parquet"), model)
        self.home, self.resources = home, tiny_resources(profile, home / "data")
        register(self.resources["ledger"], profile)

    def materialize(self, *assets: Any) -> dg.ExecuteInProcessResult:
        below = [synthetic_pool, synthetic_embeddings, synthetic_bins]
        known = [real_instructions, real_embeddings, dp_generator, dp_histogram, *below]
        partition = PARTITION if any(asset.partitions_def for asset in assets) else None
        return dg.materialize(
            known, selection=list(assets), partition_key=partition, resources=self.resources, raise_on_error=False
        )

    def forget_the_probe(self, asset: str) -> None:
        """Leave the table as a version before the probe stored it."""
        file = self.home / STORED / asset / PROVENANCE_FILE
        provenance = json.loads(file.read_text())
        assert provenance["preparation"] == "user-wise"
        file.write_text(json.dumps(provenance | {"preparation": UNKNOWN_PREPARATION}))


def message_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    return "" if error is None else "\n".join(part.message for part in (error, error.cause) if part is not None)
