"""The quality report compares each set with the noisy votes, and tells the shortage that the filtered set records."""

from dp_assets.assets.quality_report import quality_report
from tests.assets.one_asset import TEXTS, Workbench


def test_every_set_is_compared_and_the_recorded_shortage_is_told(bench: Workbench) -> None:
    bench.put_pool()
    bench.put_filtered(shortage=3)
    bench.put_votes([60, 60, 60, 60])
    bench.make(quality_report)
    report = bench.document("quality_report")
    assert report.data["shortage"] == 3
    for subject in ("before", "after", "baseline", "baseline_filtered"):
        assert 0 <= report.data[subject]["estimated_total_variation"] <= 1
    assert len(report.data["map"]["pool_xy"]) == len(TEXTS)
    assert len(report.data["map"]["filtered_xy"]) == len(TEXTS[::2])
    assert report.charge_ids == bench.both
