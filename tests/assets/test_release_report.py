"""The release report shows the statement, the quality and every training on one page."""

from dp_assets.assets.privacy_statement import privacy_statement
from dp_assets.assets.quality_report import quality_report
from dp_assets.assets.release_report import release_report
from dp_assets.stages.training_curve import TITLES
from tests.assets.one_asset import Workbench


def test_one_page_shows_the_stored_statement_and_every_training(bench: Workbench) -> None:
    bench.put_pool()
    bench.put_filtered()
    bench.put_votes([60, 60, 60, 60])
    bench.put_generator()
    bench.make(quality_report, privacy_statement)
    for asset in TITLES:
        bench.put(asset, bench.adapter(bench.both))
    bench.make(release_report)
    report = bench.document("release_report")
    assert report.html is not None
    assert report.data["statement_digest"] == bench.document("privacy_statement").data["digest"]
    assert set(report.data["pictures"]) >= {"trade_off", "epsilon", "votes", "map", *TITLES.values()}
    assert report.html.count("<picture>") == len(report.data["pictures"])
    assert report.charge_ids == bench.both
