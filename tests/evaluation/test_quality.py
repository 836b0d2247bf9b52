"""The report compares like with like, and no text can break out of its Markdown."""

import json

import numpy as np
import pytest

from dp_assets.artifacts import Document
from dp_assets.evaluation.quality import FIGURES, SyntheticSet, escape_markdown, quality_report

NOISY_VOTES = np.array([60, 30, 10, -4])
HOSTILE = "# a | b\n<script>alert(1)</script> ![x](http://y.example/z.png) **bold** `code` & more"


def synthetic(counts: list[int], word: str) -> SyntheticSet:
    bin_ids = np.repeat(np.arange(4), counts)
    return SyntheticSet([f"What is {word} number {row}?" for row in range(len(bin_ids))], bin_ids)


def report(baseline: SyntheticSet | None = None, filtered: SyntheticSet | None = None, seed: int = 3) -> Document:
    return quality_report(
        pool=synthetic([10, 10, 10, 10], "pool"),
        filtered=filtered or synthetic([12, 6, 2, 0], "kept"),
        baseline=baseline,
        noisy_votes=NOISY_VOTES,
        noise_stddev=2.0,
        target=21,
        shortage=1,
        num_examples=3,
        seed=seed,
        charge_ids=("a", "b"),
    )


def test_resampling_to_the_votes_shows_as_agreement() -> None:
    data = report().data
    assert data["before"]["total_variation"] == pytest.approx(0.4)
    assert data["after"]["total_variation"] == pytest.approx(0)
    assert data["noise_floor"] == pytest.approx(np.sqrt(2 / np.pi) * 2 * 4 / (2 * 96))
    assert (data["clearly_occupied_bins"], data["shortage"], data["target"]) == (3, 1, 21)


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
    assert all(f"| {figure.title} |" in markdown and figure.meaning in markdown for figure in FIGURES.values())


def test_diversity_does_not_depend_on_how_much_larger_the_pool_is() -> None:
    phrases = ["Tell me about cats.", "Tell me about dogs.", "Why is it so?", "Who was she?"]
    pool = SyntheticSet(phrases * 50, np.tile(np.arange(4), 50))
    kept = SyntheticSet(phrases * 2, np.tile(np.arange(4), 2))
    data = quality_report(
        pool=pool, filtered=kept, baseline=None, noisy_votes=NOISY_VOTES, noise_stddev=2.0, target=8, shortage=0,
        num_examples=0, seed=0,
    ).data  # fmt: skip
    assert data["diversity_sample_size"] == 8
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
