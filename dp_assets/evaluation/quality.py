"""The quality report: the synthetic pool before and after resampling, and a public baseline, free of charge.

Inputs are released texts, their bins, and the noisy votes. No exact count and no real row takes part, so the report may
be published with the set that it describes. It says how alike the sets and the votes are over the bins and what the
texts look like; it cannot say whether a text is a good instruction.

The data of the report:

    before, after, baseline   figures by name for the pool, the resampled set and the baseline (or None)
    diversity_sample_size     texts of each set behind its diversity figures
    noise_floor               the total variation that the noise of the votes causes alone
    num_bins, clearly_occupied_bins, target, shortage
    bins                      the shares of each bin in the noisy votes, the pool and the resampled set, and the noise
    examples                  texts by set
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dp_assets.artifacts import Document
from dp_assets.evaluation.agreement import (
    Integers,
    agreement_figures,
    bin_shares,
    clearly_occupied_bins,
    expected_noise_total_variation,
    noisy_shares,
)
from dp_assets.evaluation.text_figures import diversity_figures, form_figures

MARKDOWN_PUNCTUATION = "\\`*_{}[]|~#$"
LONGEST_EXAMPLE = 280

# Insertion order is the order of the sections and of the columns.
SET_TITLES = {
    "before": "Before: the synthetic pool",
    "after": "After: resampled to the votes",
    "baseline": "Baseline: epsilon zero, public model",
}
COLUMN_TITLES = {"before": "before", "after": "after", "baseline": "epsilon zero"}


class SyntheticSet(NamedTuple):
    """Texts (n,) and the bin of each, int64 (n,)."""

    texts: Sequence[str]
    bin_ids: Integers


@dataclass(frozen=True)
class Figure:
    """How one figure is shown to people: its name, whether it is a share of one, and what it says."""

    title: str
    meaning: str
    is_share: bool = False


FIGURES = {
    "rows": Figure("rows", "Size of the set."),
    "total_variation": Figure(
        "distance to the votes",
        "Total variation: the share of rows in the wrong bin. Lower is better, see the noise floor.",
        True,
    ),
    "jensen_shannon": Figure(
        "divergence from the votes", "Jensen-Shannon divergence in bits, from 0 (alike) to 1. Lower is better."
    ),
    "coverage": Figure("coverage", "Share of the clearly occupied bins that hold a row. Higher is better.", True),
    "distinct_1": Figure("distinct words", "Distinct words by all words, in samples of equal size.", True),
    "distinct_2": Figure("distinct word pairs", "The same for pairs: low when texts repeat phrases.", True),
    "duplicate_share": Figure("duplicates", "Texts that repeat another one, in samples of equal size.", True),
    "words_p10": Figure("words, 10 %", "A tenth of the texts is no longer than this."),
    "words_p50": Figure("words, median", "Half of the texts is no longer than this."),
    "words_p90": Figure("words, 90 %", "Nine tenths of the texts are no longer than this."),
    "question_mark_share": Figure("questions", "Texts that end in a question mark.", True),
    "instruction_like_share": Figure(
        "instruction-like", "Heuristic: opens with a question or request word, or ends in a question mark.", True
    ),
    "personal_data_like_share": Figure(
        "personal-data-like",
        "Heuristic: holds what looks like an e-mail or IP address, a telephone number or a URL.",
        True,
    ),
}


def quality_report(
    *,
    pool: SyntheticSet,
    filtered: SyntheticSet,
    baseline: SyntheticSet | None,
    noisy_votes: Integers,
    noise_stddev: float,
    target: int,
    shortage: int,
    num_examples: int,
    seed: int,
    charge_ids: tuple[str, ...] = (),
) -> Document:
    """Compare the pool, the resampled set and, where given, the baseline with the noisy votes and with each other.

    Args:
      pool: the synthetic pool before resampling.
      filtered: the set after resampling and topping up.
      baseline: samples of the public model without private training, assigned to the same bins.
      noisy_votes: the released votes, shape (num_bins,).
      noise_stddev: standard deviation of the noise on one vote count, in votes.
      target: how many rows the resampled set was to have.
      shortage: how many of them neither the pool nor the top-up could give.
      num_examples: how many texts of each set to show.
      seed: a public seed; it draws the examples and the samples of equal size behind the diversity figures.

    Raises:
      ValueError: a set is empty, or a bin id lies outside the bins of the votes.
    """
    sets = {"before": pool, "after": filtered} | ({"baseline": baseline} if baseline else {})
    data = {
        **_figures(sets, noisy_votes, noise_stddev=noise_stddev, seed=seed),
        "target": target,
        "shortage": shortage,
        "bins": _bins(pool, filtered, noisy_votes, noise_stddev=noise_stddev),
        "examples": {name: _draw(each.texts, num_examples, seed) for name, each in sets.items()},
    }
    return Document(data=data, markdown=_markdown(data), charge_ids=charge_ids)


def one_line(text: str) -> str:
    """The text without line breaks and characters that cannot be printed."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def escape_markdown(text: str) -> str:
    """One line that Markdown and HTML show as plain text, in a table cell too: nothing in it is run or loaded."""
    escaped = "".join(
        f"\\{character}" if character in MARKDOWN_PUNCTUATION else character for character in one_line(text)
    )
    return html.escape(escaped, quote=False)


def _figures(
    sets: Mapping[str, SyntheticSet], noisy_votes: Integers, *, noise_stddev: float, seed: int
) -> dict[str, Any]:
    # Larger sets repeat more, so the diversity of sets is compared in samples of one size.
    sample_size = min(len(each.texts) for each in sets.values())
    by_set = {
        name: {
            "rows": float(len(each.texts)),
            **agreement_figures(each.bin_ids, noisy_votes, noise_stddev=noise_stddev),
            **diversity_figures(_draw(each.texts, sample_size, seed)),
            **form_figures(each.texts),
        }
        for name, each in sets.items()
    }
    return {
        **{name: by_set.get(name) for name in SET_TITLES},
        "diversity_sample_size": sample_size,
        "noise_floor": expected_noise_total_variation(noisy_votes, noise_stddev),
        "num_bins": len(noisy_votes),
        "clearly_occupied_bins": clearly_occupied_bins(noisy_votes, noise_stddev=noise_stddev),
    }


def _bins(pool: SyntheticSet, filtered: SyntheticSet, noisy_votes: Integers, *, noise_stddev: float) -> dict[str, Any]:
    num_bins, total = len(noisy_votes), max(1, int(noisy_votes.clip(0).sum()))
    return {
        "votes": noisy_shares(noisy_votes).tolist(),
        "before": bin_shares(pool.bin_ids, num_bins).tolist(),
        "after": bin_shares(filtered.bin_ids, num_bins).tolist(),
        "noise_share_stddev": noise_stddev / total,
    }


def _draw(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """The first `count` texts in an order that the public seed fixes."""
    return [texts[row] for row in np.random.default_rng(seed).permutation(len(texts))[:count]]


def _markdown(data: Mapping[str, Any]) -> str:
    sections = [
        "## Quality of the synthetic set",
        summary(data),
        markdown_table(figure_rows(data)),
        *_examples(data["examples"]),
    ]
    return "\n\n".join(sections) + "\n"


def figure_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The figures as a table, its header first: one row a figure, one column a set, and what the figure says."""
    names = [name for name in SET_TITLES if data[name] is not None]
    rows = [
        (figure.title, *(_shown(figure, data[name][key]) for name in names), figure.meaning)
        for key, figure in FIGURES.items()
    ]
    return [("figure", *(COLUMN_TITLES[name] for name in names), "what it says"), *rows]


def summary(data: Mapping[str, Any]) -> str:
    """What the report says in a few sentences."""
    before, after, floor = data["before"]["total_variation"], data["after"]["total_variation"], data["noise_floor"]
    return (
        f"Resampling moved the set from {before:.1%} to {after:.1%} distance to the noisy votes. The noise of the votes"
        f" alone causes about {floor:.1%}: a distance of that size or below cannot be told from full agreement with the"
        f" real rows. The set has {data['after']['rows']:,.0f} rows of a target of {data['target']:,};"
        f" {data['shortage']:,} could not be found. {data['clearly_occupied_bins']:,} of {data['num_bins']:,} bins are"
        f" clearly occupied. Diversity is compared in samples of {data['diversity_sample_size']:,} texts. Every figure"
        " is post-processing of released data and costs no privacy."
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its header first, with figures at the right between a first and a last column of text.

    Cells stand as they are: escape what may hold markup.
    """
    header, *body = rows
    alignment = ("---", *("---:" for _ in header[1:-1]), "---")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, alignment, *body])


def _shown(figure: Figure, value: float) -> str:
    if figure.is_share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def _examples(examples: Mapping[str, Sequence[str]]) -> list[str]:
    """A one-column table a set: a table cell holds inline text only, so no example can open a heading or a list."""
    return [
        "\n".join([f"| {SET_TITLES[name]} |", "| --- |", *(f"| {escape_markdown(excerpt(text))} |" for text in texts)])
        for name, texts in examples.items()
        if texts
    ]


def excerpt(text: str) -> str:
    """One line of the text, cut where it is long."""
    line = one_line(text)
    return line if len(line) <= LONGEST_EXAMPLE else f"{line[:LONGEST_EXAMPLE]} ..."
