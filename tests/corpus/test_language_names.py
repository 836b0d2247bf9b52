"""Every spelling of a language has one code, which depends on that spelling alone."""

import polars as pl
import pytest

from dp_assets.corpus.language_names import LANGUAGE_CODES, NAMES, language_code, language_of


@pytest.mark.parametrize(
    "spelling", ["zh", "ZH", " zh ", "zh-Hans-CN", "zh_TW", "zho", "chi", "Chinese", "Mandarin (x)"]
)
def test_spellings_of_one_language_have_one_code(spelling: str) -> None:
    assert language_of(spelling) == "zh"


def test_an_unknown_language_keeps_its_name_and_blank_is_none() -> None:
    assert [language_of(spelling) for spelling in ("Klingon", "tlh-AQ", "", " ")] == ["klingon", "tlh", None, None]


def test_no_spelling_names_two_languages() -> None:
    assert len(NAMES.replace(",", " ").split()) == len(LANGUAGE_CODES)


def test_a_columns_codes_are_those_of_its_values_and_a_missing_one_stays_missing() -> None:
    rows = pl.LazyFrame({"language": ["English", None, "deu", "English"]}).with_columns(
        language_code(pl.col("language"))
    )
    assert rows.collect()["language"].to_list() == ["en", None, "de", "en"]
