"""Detects the language of rows that name none with py3langid: offline, by a model in its package, one text at a time.

Left out: a measure of confidence. Short texts are often taken for a similar language, and code for any language.
"""

from importlib.util import find_spec

import polars as pl

from dp_assets.corpus.columns import SourceError

INSTALL = "pip install 'dp-instructions[language]'"


def is_installed() -> bool:
    """Return whether py3langid is installed."""
    return find_spec("py3langid") is not None


def detect_languages(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Fill in missing languages as ISO 639-1 codes such as `en`, each from its own row's text.

    Raises:
      SourceError: py3langid is not installed.
    """
    try:
        import py3langid
    except ModuleNotFoundError:
        raise SourceError(f"corpus.detect_language needs the package py3langid: {INSTALL}") from None

    def detect(unnamed: pl.Series) -> pl.Series:
        return pl.Series([None if text is None else py3langid.classify(text)[0] for text in unnamed], dtype=pl.String)

    # The detector gets null for rows that name a language, so it reads only the others.
    unnamed = pl.when(pl.col("language").is_null()).then(pl.col("text"))
    detected = unnamed.map_batches(detect, return_dtype=pl.String(), is_elementwise=True)
    return rows.with_columns(language=pl.coalesce("language", detected))
