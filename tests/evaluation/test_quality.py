"""The report compares like with like, and no text can break out of its Markdown."""

import json

import numpy as np
import pytest

from dp_assets.artifacts import Document
from dp_assets.evaluation.quality import FIGURES, ComparedSets, SyntheticSet, escape_markdown, quality_report
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.selection.histogram import NoisyHistogram

NOISY_VOTES = np.array([60, 30, 10, -4])
HOSTILE = "# a | b\n<script>alert(1)</script> ![x](http://y.example/z.png) **bold** `code` & more"


def synthetic(counts: list[int], word: str) -> SyntheticSet:
    bin_ids = np.repeat(np.arange(4), counts)
    return SyntheticSet([f"What is {word} number {row}?" for row in range(len(bin_ids))], bin_ids)


def settings(examples: int = 1, seed: int = 0) -> ReportSettings:
    return ReportSettings(baseline_samples=1, examples=examples, mauve_buckets=2, seed=seed)


def report(baseline: SyntheticSet | None = None, filtered: SyntheticSet | None = None, seed: int = 3) -> Document:
    return quality_report(
        ComparedSets(synthetic([10, 10, 10, 10], "pool"), filtered or synthetic([12, 6, 2, 0], "kept"), baseline),
        NoisyHistogram(NOISY_VOTES, 2.0),
        settings(examples=3, seed=seed),
        target=21,
        shortage=1,
        charge_ids=("a", "b"),
    )


def test_resampling_to_the_votes_shows_as_agreement() -> None:
    data = report().data
    assert data["before"]["total_variation"] == pytest.approx(0.4)
    assert data["after"]["total_variation"] == pytest.approx(0)
    assert data["noise_floor"] == pytest.approx(np.sqrt(2 / np.pi) * 2 * 4 / (2 * 96))
    assert (data["clearly_occupied_bins"], data["shortage"], data["target"]) == (3, 1, 21)


def test_every_estimate_stands_inside_its_interval_and_is_a_number_of_the_catalog() -> None:
    figures = report(baseline=synthetic([0, 0, 0, 9], "public")).data["after"]
    for name in ("total_variation", "jensen_shannon", "frontier_score", "covered_share"):
        low, value, high = (figures[f"estimated_{name}{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1


def test_at_equal_size_a_large_set_is_no_nearer_than_a_small_one_of_the_same_shares() -> None:
    large, small = synthetic([400, 400, 400, 400], "a"), synthetic([4, 4, 4, 4], "b")
    histogram = NoisyHistogram(np.array([25, 25, 25, 25]) * 40, 2.0)
    data = quality_report(ComparedSets(large, small), histogram, settings(), target=16, shortage=0).data
    assert data["equal_size"] == 16
    assert data["before"]["estimated_total_variation"] < 0.02
    assert data["before"]["equal_size_total_variation"] > 0.1
    assert data["sampling_floor"] == pytest.approx(data["before"]["equal_size_total_variation"], abs=0.06)


def test_the_filtered_baseline_is_a_column_of_its_own() -> None:
    some = synthetic([1, 1, 1, 1], "public")
    compared = ComparedSets(some, some, some, synthetic([3, 1, 0, 0], "kept"))
    data = quality_report(compared, NoisyHistogram(NOISY_VOTES, 2.0), settings(), target=4, shortage=0)
    assert "| epsilon zero, filtered |" in data.markdown
    nearer, further = (data.data[name]["estimated_total_variation"] for name in ("baseline_filtered", "baseline"))
    assert nearer < further


def test_personal_data_is_counted_by_kind_and_set() -> None:
    texts = ["write to jo@example.com", "my password: hunter2!!", "nothing here", "nor here"]
    found = report(filtered=SyntheticSet(texts, np.arange(4))).data["personal_data"]
    assert found["after"]["secret"] == 0.25
    assert found["after"].get("email", 0.25) == 0.25
    assert set(found["before"].values()) == {0.0}


def test_data_is_json_and_keeps_the_charge_ids() -> None:
    document = report(baseline=synthetic([0, 0, 0, 9], "public"))
    assert json.loads(json.dumps(document.data, allow_nan=False)) == document.data
    assert document.charge_ids == ("a", "b")


def test_baseline_is_a_column_only_where_it_is_given() -> None:
    without, with_baseline = report(), report(baseline=synthetic([0, 0, 0, 9], "public"))
    assert without.data["baseline"] is None
    assert "epsilon zero" not in without.markdown
    assert with_baseline.data["baseline"]["total_variation"] == pytest.approx(1)
    assert "| epsilon zero |" in with_baseline.markdown


def test_every_figure_has_a_row_with_its_explanation() -> None:
    markdown = report().markdown
    with_vectors = ("self_similarity", "near_duplicate_share")
    shown = [figure for name, figure in FIGURES.items() if name not in with_vectors]
    assert all(f"| {figure.title} |" in markdown and figure.meaning in markdown for figure in shown)


def test_diversity_does_not_depend_on_how_much_larger_the_pool_is() -> None:
    phrases = ["Tell me about cats.", "Tell me about dogs.", "Why is it so?", "Who was she?"]
    pool = SyntheticSet(phrases * 50, np.tile(np.arange(4), 50))
    kept = SyntheticSet(phrases * 2, np.tile(np.arange(4), 2))
    histogram = NoisyHistogram(NOISY_VOTES, 2.0)
    data = quality_report(ComparedSets(pool, kept), histogram, settings(), target=8, shortage=0).data
    assert data["equal_size"] == 8
    assert data["before"]["duplicate_share"] < 0.9
    assert data["after"]["duplicate_share"] == 0.5


def test_examples_depend_on_the_public_seed_only() -> None:
    assert report(seed=3).data["examples"] == report(seed=3).data["examples"]
    assert report(seed=3).data["examples"] != report(seed=4).data["examples"]


def test_texts_are_shown_as_they_are_and_never_rendered() -> None:
    escaped = escape_markdown(HOSTILE)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert "&lt;script&gt;" in escaped
    assert r"\# a \| b" in escaped
    assert r"\!" not in escaped
    assert r"!\[x\](http" in escaped
    assert r"\*\*bold\*\* \`code\` &amp; more" in escaped
    assert escape_markdown("a\x00b\u202ec\r\n\td") == "a b c d"


def test_a_hostile_text_stays_inside_its_table_cell() -> None:
    texts = [HOSTILE + "\n\n" + "x" * 1000] * 4
    markdown = report(filtered=SyntheticSet(texts, np.arange(4))).markdown
    rows = [line for line in markdown.splitlines() if "script" in line]
    assert len(rows) == 3
    assert all(line.startswith("| ") and line.endswith(" ... |") and len(line) < 400 for line in rows)
    assert all(line.replace(r"\|", "").count("|") == 2 for line in rows)
