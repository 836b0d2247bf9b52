"""The quality report: the synthetic pool before and after resampling, and a public baseline, at no privacy cost.

Its inputs are released texts, their bins, and the noisy votes. It reads no exact count and no real row, so it may be
published with the set that it describes. It measures how similar the sets and the real rows are over the bins, and the
form of the texts. It cannot measure whether a text is a good instruction.

The data of the report:

    before, after, baseline, baseline_filtered
                              figures by name for the pool, the resampled set, the baseline and the resampled baseline
                              (or None); `estimated_` ones come with the ends of an interval, `_low` and `_high`
    equal_size                the rows of each set used for its diversity and its `equal_size_total_variation`
    sampling_floor            the total variation that as many random real rows would show
    noise_floor               the total variation that the noise of the votes causes alone
    num_bins, clearly_occupied_bins, target, shortage
    bins                      the shares of each bin in the noisy votes, the pool and the resampled set, and the noise
    languages, personal_data  shares by set and language, and by set and kind
    examples                  texts by set
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dp_assets.arrays import Floats, Integers
from dp_assets.artifacts import Document
from dp_assets.evaluation.agreement import (
    agreement_figures,
    bin_shares,
    clearly_occupied_bins,
    estimated_figures,
    expected_noise_total_variation,
    noisy_shares,
    total_variations,
)
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.evaluation.text_figures import (
    diversity_figures,
    form_figures,
    language_shares,
    recognized_shares,
    similarity_figures,
)
from dp_assets.evaluation.vote_posterior import VotePosterior, vote_posterior
from dp_assets.selection.histogram import NoisyHistogram

MARKDOWN_PUNCTUATION = "\\`*_{}[]|~#$"
LONGEST_EXAMPLE = 280
MOST_READ = 2000
"""The number of texts of a set, chosen by the public seed, that are searched for languages and personal data (slow)."""
SUBSETS = 16

# Insertion order is the order of the sections and of the columns.
SET_TITLES = {
    "before": "Before: the synthetic pool",
    "after": "After: resampled to the votes",
    "baseline": "Baseline: epsilon zero, public model",
    "baseline_filtered": "Baseline resampled to the same votes",
}
COLUMN_TITLES = {
    "before": "before",
    "after": "after",
    "baseline": "epsilon zero",
    "baseline_filtered": "epsilon zero, filtered",
}


class SyntheticSet(NamedTuple):
    """Texts (n,), the bin of each, int64 (n,), and if known, vectors of length one, float32 (n, d)."""

    texts: Sequence[str]
    bin_ids: Integers
    vectors: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Figure:
    """How to show one figure: its title, its meaning, and whether it is a share of one."""

    title: str
    meaning: str
    is_share: bool = False


FIGURES = {
    "rows": Figure("rows", "Size of the set."),
    "estimated_total_variation": Figure(
        "distance to the real rows",
        "Estimated total variation: the share of rows in the wrong bin. Lower is better.",
        True,
    ),
    "equal_size_total_variation": Figure(
        "the same at equal size", "For samples of equal size; fewer rows look further away by chance.", True
    ),
    "estimated_jensen_shannon": Figure(
        "divergence from the real rows",
        "Estimated Jensen-Shannon divergence in bits, from 0 (alike) to 1. Lower is better.",
    ),
    "estimated_frontier_score": Figure(
        "frontier score", "Estimated score in the manner of MAUVE over the bins, 1 for equal. Higher is better."
    ),
    "estimated_covered_share": Figure(
        "real rows covered", "Estimated share of the real rows whose bin holds a synthetic one. Higher is better.", True
    ),
    "total_variation": Figure(
        "distance to the noisy votes", "Total variation to the votes as they are, noise included: no estimate.", True
    ),
    "jensen_shannon": Figure("divergence from the noisy votes", "Jensen-Shannon divergence in bits, likewise."),
    "coverage": Figure("coverage", "Share of the clearly occupied bins that hold a row. Higher is better.", True),
    "distinct_1": Figure("distinct words", "Distinct words by all words, in samples of equal size.", True),
    "distinct_2": Figure("distinct word pairs", "The same for pairs: low when texts repeat phrases.", True),
    "duplicate_share": Figure("duplicates", "Texts that repeat another one, in samples of equal size.", True),
    "self_similarity": Figure(
        "self-similarity", "Mean cosine similarity of two texts, in samples of equal size. Lower is more diverse."
    ),
    "near_duplicate_share": Figure(
        "near duplicates", "Texts with another one at a cosine of 0.95 or more, in samples of equal size.", True
    ),
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


@dataclass(frozen=True)
class ComparedSets:
    """The sets of a report, all assigned to the same bins.

    pool               the synthetic pool before resampling
    filtered           the set after resampling and topping up
    baseline           samples of the public model without private training
    baseline_filtered  the baseline resampled to the same votes by the same rule
    """

    pool: SyntheticSet
    filtered: SyntheticSet
    baseline: SyntheticSet | None = None
    baseline_filtered: SyntheticSet | None = None

    def named(self) -> dict[str, SyntheticSet]:
        """Return the sets that exist, by their names in the report's data."""
        names = {
            "before": self.pool,
            "after": self.filtered,
            "baseline": self.baseline,
            "baseline_filtered": self.baseline_filtered,
        }
        return {name: each for name, each in names.items() if each is not None}


def quality_report(
    compared: ComparedSets,
    histogram: NoisyHistogram,
    settings: ReportSettings,
    *,
    target: int,
    shortage: int,
    charge_ids: tuple[str, ...] = (),
) -> Document:
    """Compare the pool, the resampled set and, where given, the baseline with the noisy votes and with each other.

    Args:
      compared: the sets.
      histogram: the noisy votes.
      settings: how many texts of each set are shown. Its public seed chooses them, and the samples of equal size for
        the diversity figures.
      target: the requested size of the resampled set.
      shortage: how many of its rows replace rows of other bins that neither the pool nor the top-up could give.
      charge_ids: the charges that the report descends from.

    Raises:
      ValueError: a set is empty, or a bin id is outside the bins of the votes.
    """
    sets, seed = compared.named(), settings.seed
    data = {
        **_figures(sets, histogram, seed=seed),
        "target": target,
        "shortage": shortage,
        "languages": {name: language_shares(_draw(each.texts, MOST_READ, seed)) for name, each in sets.items()},
        "personal_data": {name: recognized_shares(_draw(each.texts, MOST_READ, seed)) for name, each in sets.items()},
        "bins": _bins(compared.pool, compared.filtered, histogram),
        "examples": {name: _draw(each.texts, settings.examples, seed) for name, each in sets.items()},
    }
    return Document(data=data, markdown=_markdown(data), charge_ids=charge_ids)


def one_line(text: str) -> str:
    """Return the text without line breaks and characters that cannot be printed."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def escape_markdown(text: str) -> str:
    """Return one line that Markdown and HTML show as plain text, in table cells too. Nothing in it is run or loaded."""
    escaped = "".join(
        f"\\{character}" if character in MARKDOWN_PUNCTUATION else character for character in one_line(text)
    )
    return html.escape(escaped, quote=False)


def _figures(sets: Mapping[str, SyntheticSet], histogram: NoisyHistogram, *, seed: int) -> dict[str, Any]:
    noisy_votes, noise_stddev = histogram.votes, histogram.noise_stddev
    size, num_bins = min(len(each.texts) for each in sets.values()), len(noisy_votes)
    counts = {name: np.bincount(each.bin_ids, minlength=num_bins) for name, each in sets.items()}
    agreements = {
        name: agreement_figures(each.bin_ids, noisy_votes, noise_stddev=noise_stddev) for name, each in sets.items()
    }
    posterior = vote_posterior(noisy_votes, noise_stddev=noise_stddev, unvoted_counts=counts["before"], seed=seed)
    by_set = {
        name: {
            "rows": float(len(each.texts)),
            **agreements[name],
            **_estimates(counts[name], posterior),
            "equal_size_total_variation": _equal_size_distance(counts[name], posterior, size, seed),
            **_diversity(each, size, seed),
            **form_figures(each.texts),
        }
        for name, each in sets.items()
    }
    return {
        **{name: by_set.get(name) for name in SET_TITLES},
        "equal_size": size,
        "sampling_floor": _sampling_floor(posterior, size, seed),
        "noise_floor": expected_noise_total_variation(noisy_votes, noise_stddev),
        "num_bins": num_bins,
        "clearly_occupied_bins": clearly_occupied_bins(noisy_votes, noise_stddev=noise_stddev),
    }


def _estimates(counts: Integers, posterior: VotePosterior) -> dict[str, float]:
    """Return each estimate and the ends of its interval, by name."""
    estimates = {}
    for name, estimate in estimated_figures(counts, posterior).items():
        estimates[f"estimated_{name}"] = estimate.value
        estimates |= {f"estimated_{name}_low": estimate.low, f"estimated_{name}_high": estimate.high}
    return estimates


def _equal_size_distance(counts: Integers, posterior: VotePosterior, size: int, seed: int) -> float:
    """Return the mean estimated total variation of samples of `size` rows of the set, without replacement."""
    samples = np.random.default_rng(seed).multivariate_hypergeometric(counts, size, size=SUBSETS) / size
    return float(np.mean([total_variations(posterior.shares, sample).mean() for sample in samples]))


def _sampling_floor(posterior: VotePosterior, size: int, seed: int) -> float:
    """Return the mean total variation between real rows and `size` random ones, the least that a sample can expect."""
    generator = np.random.default_rng(seed)
    drawn: Floats = np.stack([generator.multinomial(size, shares / shares.sum()) for shares in posterior.shares]) / size
    return float(total_variations(posterior.shares, drawn).mean())


def _diversity(each: SyntheticSet, size: int, seed: int) -> dict[str, float]:
    """Return the diversity of a sample of `size` texts. Sets are compared at one size: larger ones repeat more."""
    rows = _order(len(each.texts), seed)[:size]
    similar = {} if each.vectors is None else similarity_figures(each.vectors[rows])
    return {**diversity_figures([each.texts[row] for row in rows]), **similar}


def _bins(pool: SyntheticSet, filtered: SyntheticSet, histogram: NoisyHistogram) -> dict[str, Any]:
    num_bins, total = len(histogram.votes), max(1, int(histogram.votes.clip(0).sum()))
    return {
        "votes": noisy_shares(histogram.votes).tolist(),
        "before": bin_shares(pool.bin_ids, num_bins).tolist(),
        "after": bin_shares(filtered.bin_ids, num_bins).tolist(),
        "noise_share_stddev": histogram.noise_stddev / total,
    }


def _draw(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return the first `count` texts in an order that the public seed determines."""
    return [texts[row] for row in _order(len(texts), seed)[:count]]


def _order(count: int, seed: int) -> Integers:
    order: Integers = np.random.default_rng(seed).permutation(count)
    return order


def _markdown(data: Mapping[str, Any]) -> str:
    sections = [
        "## Quality of the synthetic set",
        summary(data),
        markdown_table(figure_rows(data)),
        *_examples(data["examples"]),
    ]
    return "\n\n".join(sections) + "\n"


def sets_of(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the sets in a report's data, in the order of its columns."""
    return [name for name in SET_TITLES if data.get(name) is not None]


def figure_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the figures as a table with its header: a row for each figure, a column for each set, and the meaning."""
    names = sets_of(data)
    known = {key: figure for key, figure in FIGURES.items() if all(key in data[name] for name in names)}
    rows = [
        (figure.title, *(_shown(figure, data[name], key) for name in names), figure.meaning)
        for key, figure in known.items()
    ]
    return [
        ("figure", *(COLUMN_TITLES[name] for name in names), "what it says"),
        *rows,
        *_language_rows(data),
        *_personal_data_rows(data),
    ]


def _language_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    languages = data["languages"]
    if not any(languages.values()):
        return []
    cells = [", ".join(f"{code} {share:.0%}" for code, share in languages[name].items()) for name in sets_of(data)]
    return [("languages", *cells, "Detected text by text; short texts are often taken for another language.")]


def _personal_data_rows(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    names, shares = sets_of(data), data["personal_data"]
    says = "Texts in which a recognizer finds this. Invented data count too, and names are not searched for."
    return [(f"holds: {kind}", *(f"{shares[name][kind]:.1%}" for name in names), says) for kind in shares["before"]]


def summary(data: Mapping[str, Any]) -> str:
    """Summarize the report in a few sentences."""
    names = {
        "after": "the resampled set",
        "before": "the pool",
        "baseline": "the public model without private training",
        "baseline_filtered": "that model's texts resampled to the same votes",
    }
    distances = [
        f"{_with_interval(data[name], 'estimated_total_variation', '.1%')} for {title}"
        for name, title in names.items()
        if data.get(name) is not None
    ]
    return (
        f"How far the rows lie from the real ones, as the share of rows in the wrong bin: {'; '.join(distances)}. These"
        " are estimates with intervals at 95 %, over what the exact votes may have been given the noisy ones. The"
        f" distance to the noisy votes as they are, {data['after']['total_variation']:.1%}, flatters a set that was"
        f" resampled to them, since it follows their noise. At an equal size of {data['equal_size']:,} rows even"
        f" randomly drawn real rows would show {data['sampling_floor']:.1%}. The set has {data['after']['rows']:,.0f}"
        f" rows of a target of {data['target']:,}; {data['shortage']:,} of them stand in for rows"
        " of other bins, for which no sample could be found."
        f" {data['clearly_occupied_bins']:,} of {data['num_bins']:,} bins are clearly occupied. Every figure is"
        " post-processing of released data and costs no privacy."
    )


def _with_interval(figures: Mapping[str, float], key: str, form: str) -> str:
    value, low, high = (figures[name] for name in (key, f"{key}_low", f"{key}_high"))
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table from its header and rows. The first and last columns are text, the others figures.

    Cells are not escaped: the caller escapes those that may hold markup.
    """
    header, *body = rows
    alignment = ("---", *("---:" for _ in header[1:-1]), "---")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, alignment, *body])


def _shown(figure: Figure, figures: Mapping[str, float], key: str) -> str:
    value = figures[key]
    if f"{key}_low" in figures:
        return _with_interval(figures, key, ".1%" if figure.is_share else ".3g")
    if figure.is_share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def _examples(examples: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a one-column table for each set. Table cells hold inline text only, so no example can start a heading."""
    return [
        "\n".join([f"| {SET_TITLES[name]} |", "| --- |", *(f"| {escape_markdown(excerpt(text))} |" for text in texts)])
        for name, texts in examples.items()
        if texts
    ]


def excerpt(text: str) -> str:
    """Return the text as one line, cut if it is long."""
    line = one_line(text)
    return line if len(line) <= LONGEST_EXAMPLE else f"{line[:LONGEST_EXAMPLE]} ..."
