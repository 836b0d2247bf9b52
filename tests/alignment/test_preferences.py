from collections import Counter

import polars as pl
import pytest

from dp_assets.alignment.preferences import RULES, make_preference_pairs


def annotated(num_rows: int, num_bins: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "synthetic_id": [f"pool-{row:06d}" for row in range(num_rows)],
            "instruction": [f"question {row}" for row in range(num_rows)],
            "response": [f"this is the whole answer to question {row}" for row in range(num_rows)],
            "annotator": ["tiny"] * num_rows,
            "bin_id": [row % num_bins for row in range(num_rows)],
        }
    )


def hot(instructions: list[str]) -> list[str]:
    return [f"hot nonsense for {instruction}" for instruction in instructions]


def pairs_of(rows: pl.DataFrame, *, num_pairs: int = 1000, seed: int = 0) -> pl.DataFrame:
    return make_preference_pairs(rows, sampled_hot=hot, num_pairs=num_pairs, seed=seed)


def test_the_rules_take_turns_and_no_row_meets_a_rule_twice():
    pairs = pairs_of(annotated(8))
    assert Counter(pairs["rejected_by"]) == dict.fromkeys(RULES, 8)
    assert pairs.select("synthetic_id", "rejected_by").is_unique().all()
    assert pairs["rejected_by"].to_list()[:6] == [*RULES, *RULES]


def test_every_row_comes_up_once_before_any_comes_up_twice():
    assert pairs_of(annotated(9), num_pairs=9)["synthetic_id"].n_unique() == 9


def test_the_chosen_answer_is_the_annotated_one_and_never_the_rejected_one():
    rows = annotated(20)
    pairs = pairs_of(rows)
    answers = dict(rows.select("synthetic_id", "response").iter_rows())
    assert all(
        answers[identifier] == chosen for identifier, chosen in pairs.select("synthetic_id", "chosen").iter_rows()
    )
    assert pairs.filter(pl.col("chosen") == pl.col("rejected")).is_empty()


def test_mismatched_answers_come_from_another_bin():
    rows = annotated(30)
    pairs = pairs_of(rows).filter(pl.col("rejected_by") == "mismatched")
    bin_of_answer = dict(rows.select("response", "bin_id").iter_rows())
    assert pairs.height == 30
    assert all(
        bin_of_answer[chosen] != bin_of_answer[bad] for chosen, bad in pairs.select("chosen", "rejected").iter_rows()
    )
    assert {bin_of_answer[bad] for bad in pairs["rejected"]} == {0, 1, 2}


def test_with_one_bin_mismatched_answers_still_answer_something_else():
    pairs = pairs_of(annotated(30, num_bins=1)).filter(pl.col("rejected_by") == "mismatched")
    assert pairs.height > 20
    assert pairs.filter(pl.col("chosen") == pl.col("rejected")).is_empty()


def test_cut_answers_are_shorter_beginnings_of_the_chosen_ones():
    pairs = pairs_of(annotated(30)).filter(pl.col("rejected_by") == "cut")
    assert pairs.height == 30
    for chosen, rejected in pairs.select("chosen", "rejected").iter_rows():
        assert chosen.startswith(rejected)
        assert 0.15 * len(chosen) < len(rejected) <= 0.75 * len(chosen)


def test_hot_answers_are_sampled_for_their_own_prompts():
    pairs = pairs_of(annotated(10)).filter(pl.col("rejected_by") == "hot")
    assert pairs["rejected"].to_list() == hot(pairs["prompt"].to_list())


def test_a_rule_that_finds_no_other_answer_gives_no_pair():
    same = annotated(6).with_columns(response=pl.lit("k"))
    pairs = make_preference_pairs(
        same, sampled_hot=lambda texts: ["k ", *[""] * (len(texts) - 1)], num_pairs=18, seed=0
    )
    assert pairs.is_empty()


def test_pairs_depend_on_the_seed_and_not_on_the_order_of_rows():
    rows = annotated(12)
    assert pairs_of(rows).equals(pairs_of(rows.reverse()))
    assert not pairs_of(rows).equals(pairs_of(rows, seed=1))


def test_a_sampler_that_skips_a_prompt_is_refused():
    with pytest.raises(ValueError, match="sampled_hot gave 0 answers"):
        make_preference_pairs(annotated(6), sampled_hot=lambda _: [], num_pairs=6, seed=0)


def test_no_annotated_rows_give_no_pairs():
    pairs = pairs_of(annotated(3).clear())
    assert pairs.columns == ["synthetic_id", "prompt", "chosen", "rejected", "rejected_by"]
    assert pairs.is_empty()
