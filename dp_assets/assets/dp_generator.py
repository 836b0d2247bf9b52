"""The asset `dp_generator`."""

from functools import cache, partial
from pathlib import Path

import dagster as dg

from dp_assets.artifacts import Adapter, PrivateTable
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import result
from dp_assets.pipeline.release_protocol import Mechanism, ReleaseConfig, obtain
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import check_dpsgd
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import GENERATOR
from dp_assets.settings.profile import Profile
from dp_assets.stages.preflight import check_rest_of_run
from resources.ledger.charging import Ledger
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
) -> dg.MaterializeResult[Adapter]:
    """LoRA adapter of the instruction generator, trained with DP-SGD on the real instructions: the first spend."""
    from dp_assets.generation import generator

    settings, checkpoints = profile.generator.tuning(), private_folder(Path(ledger.private_root) / "checkpoints")
    inputs = settings | {"language_model": language_model.public_name, "dtype": profile.generator.dtype}
    load_model = cache(partial(language_model.load, dtype=profile.generator.dtype))  # for the check and the training
    fits = partial(generator.require_trainable, load_model, **settings)
    rest = partial(check_rest_of_run, context, profile, releases.home, language_model, embedder)
    with private_step(ledger.private_root):
        mechanism = Mechanism.of(context, ledger, profile, real_instructions, release=config.release, inputs=inputs)
        adapter = obtain(
            mechanism,
            ledger=ledger,
            releases=releases,
            run=partial(
                generator.train_generator,
                table=real_instructions,
                plan=mechanism.plan,
                load_model=load_model,
                base_model=language_model.public_name,
                checkpoints_root=checkpoints,
                **settings,
            ),
            ready=(rest, partial(fits, mechanism.plan)),
            check=partial(check_dpsgd, mechanism.plan.dpsgd, mechanism.plan.unit, delta=mechanism.plan.delta),
            resumable=partial(generator.can_resume, checkpoints, mechanism.plan.dpsgd.spare_steps),
            describe=partial(generator.public_record, mechanism.plan, load_model),
        )
        generator.discard_checkpoints(checkpoints, adapter.charge_ids)
    extra = metadata.mechanism_metadata(mechanism.plan, GENERATOR) | generator.headline(adapter)
    return result(context, adapter, ledger=ledger, profile=profile, extra=extra)
