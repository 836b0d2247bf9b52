"""The asset `synthetic_pool`."""

import dagster as dg
import polars as pl
from pydantic import Field

from dp_assets.artifacts import Adapter, Table
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import result
from dp_assets.privacy.labels import Label
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.profile import Profile


class SyntheticPoolConfig(dg.Config):
    """A larger pool refits the bins only where `synthetic_bins` is materialized again."""

    num_samples: int | None = Field(default=None, gt=0)


@pipeline_asset(label=Label.RELEASED, group="generation", kinds={"huggingface", "parquet"})
def synthetic_pool(
    context: dg.AssetExecutionContext,
    config: SyntheticPoolConfig,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    dp_generator: Adapter,
) -> dg.MaterializeResult[Table]:
    """Distinct instructions sampled from the generator: released, one row an instruction."""
    from dp_assets.generation.drawing import sample_pool

    sampling = profile.sampling.model_dump()
    sampling["num_samples"] = config.num_samples or sampling["num_samples"]
    pool = sample_pool(language_model.load, dp_generator, **sampling)
    number = pl.int_range(pl.len()).cast(pl.String).str.zfill(7)
    rows = pool.select(pl.format("pool-{}", number).alias("synthetic_id"), "text", "num_tokens")
    figures = {"dagster/row_count": rows.height, "samples_drawn": sampling["num_samples"]}
    return result(context, Table(rows.lazy(), dp_generator.charge_ids), ledger=ledger, profile=profile, extra=figures)
