"""A test pipeline on disk: a registered tiny corpus, its data folder, and runs of single assets in this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.registration import Registration
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder
from resources.storage.artifact_files import Artifact
from resources.storage.stores import artifact_folder
from tests.export.releases import put
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources, write_corpus


class DiskPipeline:
    """The tiny profile, with other settings where `settings` has any: a value, or values of a group."""

    def __init__(self, folder: Path, model: Path, **settings: Any) -> None:
        self.home, self.corpus_file = folder / "data", write_corpus(folder / "corpus.parquet")
        plain = tiny_profile(self.corpus_file, model).model_dump(mode="json")
        for name, value in settings.items():
            plain[name] = {**plain[name], **value} if isinstance(value, Mapping) else value
        self.profile = Profile.model_validate(plain)
        self.resources = self.resources_of(self.home)
        self.registration: Registration = register(self.ledger, self.profile)

    def resources_of(self, home: Path) -> dict[str, Any]:
        """The resources over a data folder."""
        resources = tiny_resources(self.profile, home)
        resources["embedder"] = Embedder(model=self.profile.embedder, device="cpu")
        return resources

    @property
    def ledger(self) -> Ledger:
        ledger: Ledger = self.resources["ledger"]
        return ledger

    @property
    def charges(self) -> list[ChargeRecord]:
        return list(self.ledger.state().charges.values())

    def private_folder(self, asset: str) -> Path:
        """Where a private table lies."""
        return artifact_folder(self.home, [asset], Label.PRIVATE, None)

    def materialize(
        self, *assets: dg.AssetsDefinition, partition: str = PARTITION, **further: Any
    ) -> dg.ExecuteInProcessResult:
        """A run of these assets, which may fail; `further` are arguments of Dagster's `materialize`."""
        return dg.materialize(
            ALL_ASSETS,
            selection=list(assets),
            partition_key=partition if any(asset.partitions_def for asset in assets) else None,
            resources=self.resources,
            **{"raise_on_error": False} | further,
        )

    def put(self, asset: str, value: Artifact) -> Path:
        """Store a released artifact as an earlier run would have left it; its folder."""
        return put(self.home, asset, value)


def failure_of(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """The asset that failed, and what is said of it."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    message = "" if error is None else "\n".join(part.message for part in (error, error.cause) if part is not None)
    return str(failure.step_key), message
