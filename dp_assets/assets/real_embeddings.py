"""The asset `real_embeddings`."""

import dagster as dg
import polars as pl

from dp_assets.artifacts import EMBEDDER, TRAIN_SPLIT, PrivateTable
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import private_result
from dp_assets.corpus.stability import UnstablePreparation, require_alone
from dp_assets.privacy.labels import Label
from resources.ledger import Ledger
from resources.models import Embedder, ModelUnavailable
from resources.private_step import private_step
from resources.profile import Profile

UNIT_COLUMNS = ("unit_id", "instruction_id", "cohort", "split")


@pipeline_asset(label=Label.PRIVATE, group="corpus", kinds={"huggingface", "parquet"}, partitioned=False)
def real_embeddings(
    context: dg.AssetExecutionContext,
    ledger: Ledger,
    profile: dg.ResourceParam[Profile],
    embedder: Embedder,
    real_instructions: PrivateTable,
) -> dg.MaterializeResult[PrivateTable]:
    """Vectors of the training rows: private, float32, one row an instruction."""

    def embed(rows: pl.LazyFrame) -> pl.LazyFrame:
        training = rows.filter(pl.col("split") == TRAIN_SPLIT).collect()
        vectors = pl.Series("vector", embedder.encode_alone(training["text"].to_list()))
        return training.select(*UNIT_COLUMNS, vectors).lazy()

    with private_step(ledger.private_root, UnstablePreparation, ModelUnavailable):
        require_alone(embedder.encode_alone)
        table = real_instructions.map(embed, made_with={EMBEDDER: embedder.public_name})
    return private_result(context, table, ledger=ledger, profile=profile)
