"""The annotated set: a response of the language model to each instruction that it answered."""

from dp_assets.assets.annotated_instructions import annotated_instructions
from tests.assets.one_asset import TEXTS, Workbench


def test_responses_belong_to_instructions_of_the_filtered_set_and_those_without_are_counted(bench: Workbench) -> None:
    bench.put_filtered()
    bench.make(annotated_instructions)
    annotated = bench.table("annotated_instructions")
    rows, filtered = annotated.collect(), bench.table("filtered_instructions").collect()
    joined = rows.join(filtered, on="synthetic_id", how="inner")
    assert joined.height == rows.height > 0
    assert (joined["instruction"] == joined["text"]).all()
    assert not rows["response"].str.strip_chars().is_in([""]).any()
    assert rows.height + bench.shown["annotated_instructions"]["unanswered"] == len(TEXTS[::2])
    assert annotated.charge_ids == bench.both
