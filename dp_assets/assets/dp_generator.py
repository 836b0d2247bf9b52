"""The asset `dp_generator`."""

from functools import partial
from pathlib import Path

import dagster as dg

from dp_assets.artifacts import Adapter, PrivateTable
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import Mechanism, ReleaseConfig, obtain, result
from dp_assets.partitions import Partition
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import check_dpsgd
from dp_assets.privacy.labels import Label
from dp_assets.privacy.plan import GENERATOR
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.private_log import private_errors
from resources.profile import Profile
from resources.stores import ReleaseStore

# In bfloat16 one unit's gradient is rounded differently depending on who shares its micro-batch, which no clip bounds.
PRIVATE_TRAINING_DTYPE = "float32"


@pipeline_asset(label=Label.MECHANISM, group="generation", kinds={"pytorch", "huggingface"})
def dp_generator(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    releases: ReleaseStore,
    language_model: LanguageModel,
    real_instructions: PrivateTable,
) -> dg.MaterializeResult[Adapter]:
    """LoRA adapter of the instruction generator, trained with DP-SGD on the real instructions: the first spend."""
    from dp_assets.generation.generator import can_resume, train_generator

    plan, checkpoints = profile.plan(Partition.of(context).level), Path(ledger.private_root) / "checkpoints"
    settings = profile.generator.tuning()
    with private_errors(ledger.private_root):
        adapter = obtain(
            Mechanism.of(context, plan, real_instructions, release=config.release, inputs=settings),
            ledger=ledger,
            releases=releases,
            run=partial(
                train_generator,
                table=real_instructions,
                plan=plan,
                load_model=partial(language_model.load, dtype=PRIVATE_TRAINING_DTYPE),
                base_model=language_model.public_name,
                checkpoints_root=checkpoints,
                **settings,
            ),
            check=partial(check_dpsgd, plan.dpsgd, plan.unit),
            resumable=partial(can_resume, checkpoints, plan.dpsgd.spare_steps),
        )
    extra = metadata.mechanism_metadata(plan, GENERATOR) | {"signal_to_noise": adapter.record["signal_to_noise"]}
    return result(context, adapter, ledger=ledger, profile=profile, extra=extra)
