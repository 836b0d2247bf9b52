"""The asset `dp_generator`."""

from pathlib import Path

import dagster as dg

from dp_assets.artifacts import Adapter, PrivateTable
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.release_protocol import ReleaseConfig, ReleaseIdentity, obtain
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import GENERATOR
from dp_assets.settings.profile import Profile
from dp_assets.stages.preflight import RestOfRun
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder, LanguageModel
from resources.private.private_step import private_step
from resources.storage.stores import ReleaseStore
from resources.storage.zones import private_folder


@pipeline_asset(label=Label.MECHANISM, group="generation", kinds={"pytorch", "huggingface"}, code_version="2")
def dp_generator(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    releases: ReleaseStore,
    language_model: LanguageModel,
    embedder: Embedder,
    real_instructions: PrivateTable,
) -> AssetValue[Adapter]:
    """LoRA adapter of the instruction generator, trained with DP-SGD on the real instructions: the first spend."""
    from dp_assets.generation import generator

    settings, checkpoints_root = profile.generator, private_folder(Path(ledger.private_root) / "checkpoints")
    inputs = settings.tuning() | {"language_model": language_model.public_name, "dtype": settings.dtype}
    with private_step(ledger.private_root):
        plan = profile.plan(Partition.of(context).level)
        mechanism = generator.DpSgdGenerator(plan, settings, real_instructions, language_model, checkpoints_root)
        adapter = obtain(
            mechanism,
            ReleaseIdentity.of(
                mechanism, context, ledger, profile, real_instructions, release=config.release, inputs=inputs
            ),
            ledger=ledger,
            releases=releases,
            rest_of_run=RestOfRun(context, profile, releases.home, language_model, embedder),
        )
        mechanism.discard_checkpoints(adapter)
    return AssetValue(adapter, metadata.mechanism_metadata(plan, GENERATOR) | generator.page_figures(adapter))
