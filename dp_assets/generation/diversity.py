"""Diversity of texts, for synthetic sets and for sampled answers."""

from collections.abc import Sequence

import polars as pl

WORD = r"[\p{L}\p{N}]+(?:['\u{2019}-][\p{L}\p{N}]+)*"


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return distinct-n: distinct n-grams of lower-case words divided by all n-grams (Li et al., NAACL 2016).

    0 if there is no n-gram.
    """
    words = (
        pl.DataFrame({"text": pl.Series("text", texts, dtype=pl.String)})
        .with_row_index("row")
        .select("row", pl.col("text").str.to_lowercase().str.extract_all(WORD).alias("word"))
        .explode("word")
    )
    grams = words.select(
        pl.col("word").shift(-offset).over("row").alias(f"{offset}") for offset in range(n)
    ).drop_nulls()
    return grams.n_unique() / grams.height if grams.height else 0.0
