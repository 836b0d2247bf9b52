"""The asset `real_embeddings`."""

from functools import partial

import dagster as dg

from dp_assets.artifacts import EMBEDDER, PrivateTable
from dp_assets.corpus.real_vectors import embed_training_rows, require_units_apart
from dp_assets.corpus.stability import require_alone
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import private_result
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from resources.ledger.charging import Ledger
from resources.models.loaders import Embedder
from resources.private.private_step import private_step
from resources.storage.scratch import Scratch


@pipeline_asset(
    label=Label.PRIVATE, group="corpus", kinds={"huggingface", "parquet"}, partitioned=False, code_version="2"
)
def real_embeddings(
    context: dg.AssetExecutionContext,
    ledger: Ledger,
    profile: dg.ResourceParam[Profile],
    embedder: Embedder,
    real_instructions: PrivateTable,
) -> dg.MaterializeResult[PrivateTable]:
    """Vectors of the training rows: private, float32, one row an instruction."""
    with Scratch(ledger.private_root) as scratch, private_step(ledger.private_root):
        embedder.require_usable()
        require_alone(embedder.encode_alone, longest=embedder.max_tokens)
        embed = partial(embed_training_rows, encode=embedder.encode_alone)
        require_units_apart(embed)
        embed_here = partial(embed, folder=scratch.folder)
        table = real_instructions.map(embed_here, made_with={EMBEDDER: embedder.public_name}, held=scratch)
    return private_result(context, table, ledger=ledger, profile=profile)
