"""Figures on the form of synthetic texts: diversity, length, language, instruction-like and personal-data-like texts.

They read released texts only. The shares of instruction-like and personal-data-like texts are heuristics for English:
surface patterns that serve to compare two sets made in the same way, and prove nothing about a single text. What looks
like a telephone number may be invented, and names are not detected.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.language import detect_languages
from dp_assets.corpus.redaction import PATTERN_KINDS, SECRET, Redaction, redact
from dp_assets.generation.diversity import WORD, distinct_n

QUESTION_WORDS = "who whom whose what when where which why how can could would will should do does did is are am may"
REQUEST_WORDS = (
    "add advise analyse analyze answer arrange brainstorm build calculate change check choose classify code "
    "come compare compile complete compose compute construct continue convert correct create critique debug "
    "define describe design determine develop discuss draft edit elaborate estimate evaluate explain extract "
    "fill find fix format formulate generate give help identify imagine implement improve interpret introduce "
    "invent list make name offer optimize organize outline paraphrase plan please pretend produce propose "
    "provide rank read recommend refactor rephrase replace research respond review revise rewrite say select "
    "share show simplify solve sort suggest summarise summarize take teach tell think translate use verify "
    "write"
)
# Opening words are matched at the start of a text, where an instruction usually states its request.
LOOKS_LIKE_INSTRUCTION = rf"(?i)^\W*(?:{'|'.join((QUESTION_WORDS + ' ' + REQUEST_WORDS).split())})\b|\?\W*$"
ENDS_WITH_QUESTION_MARK = r"\?\W*$"

# Each pattern matches whole tokens, so that version numbers and prices are rarely taken for addresses or numbers.
PERSONAL_DATA_PATTERNS = {
    "email": r"(?i)\b[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}\b",
    "phone": r"(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?|\b\d{2,4}[ .-])\d{3,4}[ .-]\d{3,4}\b",
    "ipv4": r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b",
    "url": r"(?i)\b(?:https?://|www\.)[^\s<>]+",
}
WORD_QUANTILES = (0.1, 0.5, 0.9)
NEAR_DUPLICATE = 0.95
"""The cosine similarity from which two texts count as near duplicates."""
OTHER_LANGUAGES = "other"


def diversity_figures(texts: Sequence[str]) -> dict[str, float]:
    """Return distinct-1, distinct-2 and the duplicate share. Compare sets of equal size: larger ones repeat more."""
    return {
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "duplicate_share": duplicate_share(texts),
    }


def form_figures(texts: Sequence[str]) -> dict[str, float]:
    """Return three quantiles of the length in words, and the shares of texts that match this module's patterns."""
    column = _column(texts)
    words = column.str.count_matches(WORD)
    personal = {f"{kind}_share": _share(column, pattern) for kind, pattern in PERSONAL_DATA_PATTERNS.items()}
    return {
        **{f"words_p{quantile * 100:.0f}": _quantile(words, quantile) for quantile in WORD_QUANTILES},
        "question_mark_share": _share(column, ENDS_WITH_QUESTION_MARK),
        "instruction_like_share": _share(column, LOOKS_LIKE_INSTRUCTION),
        "personal_data_like_share": _share(column, "|".join(f"(?:{p})" for p in PERSONAL_DATA_PATTERNS.values())),
        **personal,
    }


def similarity_figures(vectors: npt.NDArray[np.float32]) -> dict[str, float]:
    """Measure the similarity of a set's texts from vectors of length one, float32 (n, d). Compare sets of equal size.

    - `self_similarity` is the mean cosine similarity of two different texts.
    - `near_duplicate_share` is the share of texts that have another one at a cosine of 0.95 or more.
    - Both are 0 for fewer than two texts.
    """
    import faiss

    count = len(vectors)
    if count < 2:
        return {"self_similarity": 0.0, "near_duplicate_share": 0.0}
    total = vectors.astype(np.float64).sum(axis=0)
    squares = float((vectors.astype(np.float64) ** 2).sum())
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    nearest, _ = index.search(np.ascontiguousarray(vectors, dtype=np.float32), 2)
    return {
        "self_similarity": (float(total @ total) - squares) / (count * (count - 1)),
        "near_duplicate_share": float((nearest[:, 1] >= NEAR_DUPLICATE).mean()),
    }


def language_shares(texts: Sequence[str], *, most: int = 3) -> dict[str, float]:
    """Return the shares of the `most` frequent languages by ISO 639-1 code, largest first, and of all others together.

    Detection errs on short texts and takes code for any language. The result is empty if py3langid is not installed.
    """
    rows = pl.LazyFrame({"text": _column(texts)}, schema_overrides={"text": pl.String})
    try:
        languages = detect_languages(rows.with_columns(language=pl.lit(None, pl.String))).collect()["language"]
    except SourceError:
        return {}
    counts = languages.value_counts(sort=True).sort(["count", "language"], descending=[True, False]).iter_rows()
    shares = {code: count / len(texts) for code, count in counts}
    named = dict(list(shares.items())[:most])
    rest = 1 - sum(named.values())
    return named | ({OTHER_LANGUAGES: rest} if len(shares) > most else {})


def recognized_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of texts in which the recognizers of `corpus/redaction.py` find each kind of data or secret.

    Kinds whose library is not installed are left out. Names of people are not searched for.
    """
    rows = pl.LazyFrame({"text": _column(texts)})
    shares = {}
    for kind in (SECRET, *PATTERN_KINDS):
        try:
            redacted = redact(rows, Redaction(kinds=(kind,))).collect()["text"]
        except SourceError:
            continue
        shares[kind] = int((redacted != _column(texts)).sum()) / len(texts)
    return shares


def duplicate_share(texts: Sequence[str]) -> float:
    """Return the share of texts that repeat another one after `normalize`, not counting the first of each."""
    column = _column(texts)
    return 1 - normalize(column).n_unique() / len(column)


def normalize(texts: pl.Series) -> pl.Series:
    """Return texts in a form that ignores case and outer or repeated white space."""
    return texts.str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def _column(texts: Sequence[str]) -> pl.Series:
    if len(texts) == 0:
        raise ValueError("texts is empty: figures need at least one text; sample or resample some rows first")
    return pl.Series("text", texts, dtype=pl.String)


def _share(column: pl.Series, pattern: str) -> float:
    return int(column.str.contains(pattern).sum()) / len(column)


def _quantile(values: pl.Series, quantile: float) -> float:
    value = values.quantile(quantile, interpolation="linear")
    return 0.0 if value is None else float(value)
