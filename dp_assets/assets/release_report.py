"""The asset `release_report`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Document, union_of_ids
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.pipeline.corpus import registration_of
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.training_curve import TITLES, course_of
from dp_assets.statements.history import cohort_histories
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger


@pipeline_asset(label=Label.RELEASED, group="reports", kinds={"matplotlib", "html"})
def release_report(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    quality_report: Document,
    privacy_statement: Document,
    sft_model: Adapter,
    reward_model: Adapter,
    rlhf_model: Adapter,
) -> AssetValue[Document]:
    """Guarantee, quality, maps and trainings of this release on one self-contained page: released, HTML."""
    from dp_assets.reports.release_page import Training
    from dp_assets.reports.release_page import release_report as make_report

    partition = Partition.of(context)
    models = {"sft_model": sft_model, "reward_model": reward_model, "rlhf_model": rlhf_model}
    report = make_report(
        cohort=partition.cohort,
        level=partition.level,
        quality=quality_report.data,
        statement=privacy_statement.data,
        trainings=[
            Training(TITLES[name], course_of(model), model.record.get("figures", {})) for name, model in models.items()
        ],
        histories=cohort_histories(ledger.entries(), registration_of(ledger, profile).corpus_id),
        charge_ids=union_of_ids(quality_report, privacy_statement, *models.values()),
    )
    return AssetValue(report, {"report": dg.MetadataValue.md(report.markdown)})
