"""Languages are detected offline, only where a row names none, and from that row alone."""

import sys

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.language import detect_languages

TEXTS = {
    "en": "How do I bake bread without an oven?",
    "de": "Wie backe ich ein Brot ohne Ofen und ohne Hefe?",
    "fr": "Comment faire du pain sans four ni levure ?",
    "es": "¿Cómo puedo hacer pan sin horno ni levadura?",
}


def detected(texts: list[str | None], languages: list[str | None]) -> list[str | None]:
    rows = pl.LazyFrame({"text": texts, "language": languages}, schema={"text": pl.String, "language": pl.String})
    return detect_languages(rows).collect()["language"].to_list()


def test_a_missing_language_is_detected_and_a_named_one_stays() -> None:
    assert detected(list(TEXTS.values()), [None] * 4) == list(TEXTS)
    assert detected([TEXTS["en"], TEXTS["de"]], ["xx", None]) == ["xx", "de"]


def test_a_missing_text_has_no_language() -> None:
    assert detected([None, TEXTS["fr"]], [None, None]) == [None, "fr"]


def test_what_is_detected_does_not_depend_on_the_other_rows() -> None:
    texts: list[str | None] = [*TEXTS.values(), "ok", "", "print(1)", "שלום", "?!"]
    assert detected(texts, [None] * len(texts)) == [detected([text], [None])[0] for text in texts]


def test_without_the_library_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(SourceError, match=r"corpus\.detect_language needs the package py3langid"):
        detected(["a"], [None])
