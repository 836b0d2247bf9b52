"""A text as it is redacted, alone."""

from typing import Any

import polars as pl

from dp_assets.corpus.redaction import PATTERN_KINDS, SECRET, Redaction, redact

WITHOUT_MODEL = (SECRET, *PATTERN_KINDS)


def redacted(text: str, *kinds: str, **settings: Any) -> str:
    rows = pl.LazyFrame({"text": [text]})
    (changed,) = redact(rows, Redaction(kinds or WITHOUT_MODEL, **settings)).collect()["text"]
    return str(changed)
