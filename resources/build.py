"""The resources of a code location, from its profile and its data folder."""

from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.privacy.labels import Zone
from dp_assets.settings.profile import Profile
from resources.annotator import annotators_of
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder, LanguageModel
from resources.private.private_step import keep_spilled_rows_private
from resources.storage.data_folder import require_known_version
from resources.storage.shards import ShardStore
from resources.storage.stores import ArtifactStore, ReleaseStore
from resources.storage.zones import data_home


def build_resources(profile: Profile, home: Path | None = None) -> dict[str, Any]:
    """Return every resource by its key; `home` defaults to the data folder of the environment.

    Raises:
      OtherDataFolder: the data folder was made by another version of this program.
    """
    root = home or data_home()
    require_known_version(root)
    keep_spilled_rows_private(root / Zone.PRIVATE)
    return {
        "profile": profile,
        "ledger": Ledger(private_root=str(root / Zone.PRIVATE)),
        "io_manager": ArtifactStore(home=str(root)),
        "releases": ReleaseStore(home=str(root)),
        "shard_store": ShardStore(home=str(root)),
        "language_model": LanguageModel(
            model=profile.language_model,
            device=profile.device,
            dtype=profile.dtype,
            cache_root=str(root / "models"),
        ),
        **annotators_of(profile, root),
        "embedder": Embedder(model=profile.embedder, device=profile.device),
    }


def fixed(resources: dict[str, Any]) -> dict[str, dg.ResourceDefinition]:
    """Return the resources with an empty configuration schema, so that no launch of a run can configure them.

    Otherwise a launch could point the ledger, and so the gate, to another folder.
    """
    return {name: _fixed(resource) for name, resource in resources.items()}


def _fixed(resource: Any) -> dg.ResourceDefinition:
    definition = dg.IOManagerDefinition if isinstance(resource, dg.IOManager) else dg.ResourceDefinition
    return definition(resource_fn=lambda _: resource, config_schema={})
