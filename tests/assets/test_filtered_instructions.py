"""The filtered set follows the noisy votes, and descends from both mechanisms."""

from dp_assets.artifacts import SHORTAGE
from dp_assets.assets.filtered_instructions import filtered_instructions
from tests.assets.one_asset import OF_A_TOPIC, TEXTS, Workbench


def test_the_votes_decide_how_many_texts_of_each_bin_are_kept(bench: Workbench) -> None:
    bench.put_pool()
    bench.put_generator()
    bench.put_votes([200, 200, 0, 0])
    bench.make(filtered_instructions)
    filtered = bench.table("filtered_instructions")
    rows = filtered.collect()
    assert rows.height == bench.profile.selection.target_size == 2 * OF_A_TOPIC
    assert sorted(rows["text"]) == sorted(TEXTS[: 2 * OF_A_TOPIC])
    assert set(rows["origin"]) == {"pool"}
    assert filtered.record == {SHORTAGE: 0}
    assert filtered.charge_ids == bench.both
