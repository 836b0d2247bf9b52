"""The asset `real_embeddings`."""

from functools import partial

from dp_assets.artifacts import EMBEDDER, PrivateTable
from dp_assets.corpus.real_vectors import embed_training_rows, require_units_apart
from dp_assets.corpus.stability import require_alone
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.privacy.labels import Label
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder
from resources.private.private_step import private_step
from resources.storage.scratch import Scratch


@pipeline_asset(
    label=Label.PRIVATE, group="corpus", kinds={"huggingface", "parquet"}, partitioned=False, code_version="2"
)
def real_embeddings(
    ledger: Ledger,
    embedder: Embedder,
    real_instructions: PrivateTable,
) -> PrivateTable:
    """Vectors of the training rows: private, float32, one row an instruction."""
    with Scratch(ledger.private_root) as scratch, private_step(ledger.private_root):
        embedder.require_usable()
        require_alone(embedder.encode_alone, longest=embedder.max_tokens)
        embed = partial(embed_training_rows, encode=embedder.encode_alone)
        require_units_apart(embed)
        embed_here = partial(embed, folder=scratch.folder)
        return real_instructions.map(embed_here, made_with={EMBEDDER: embedder.public_name}, held=scratch)
