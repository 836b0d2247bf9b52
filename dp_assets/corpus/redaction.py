"""Replaces personal data and secrets of a recognizable form by placeholders: defense in depth, not the guarantee.

Recognizers miss names, places, unusual spellings, and what one person writes about another. The privacy guarantee does
not need this step and is not stronger with it. Every text is redacted by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl

from dp_assets.corpus import recognizers
from dp_assets.corpus.recognizers import NAMED_BY_MODEL, Detector
from dp_assets.corpus.secret_forms import without_secrets
from dp_assets.corpus.settings import PHONE_REGIONS, RedactedKind

SECRET = "secret"
KINDS: tuple[str, ...] = get_args(RedactedKind)
"""In the order of replacement. Secrets come first, because a key may contain what looks like a number; names last."""
PATTERN_KINDS = tuple(kind for kind in KINDS if kind not in (SECRET, *NAMED_BY_MODEL))


@dataclass(frozen=True)
class Redaction:
    """What is replaced: some of `KINDS`, and what these need.

    `phone_regions` are those whose telephone numbers are recognized without a country code. `model` is the spaCy
    pipeline that recognizes people and places.
    """

    kinds: Sequence[str] = ()
    phone_regions: Sequence[str] = PHONE_REGIONS
    model: str | None = None

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries used to recognize what is replaced; none if no library is used."""
        if not set(self.kinds) - {SECRET}:
            return {}
        return recognizers.versions(self.model if set(self.kinds) & set(NAMED_BY_MODEL) else None)


def redact(rows: pl.LazyFrame, redaction: Redaction) -> pl.LazyFrame:
    """Replace what the redaction's recognizers find, in the order of `KINDS`.

    Raises:
      SourceError: a library or language model that a kind needs is not installed.
    """
    detectors = [detector for kind, detector in _detectors(redaction).items() if kind in redaction.kinds]

    def redact_each(texts: pl.Series) -> pl.Series:
        return pl.Series(texts.name, [_redacted(text, detectors) for text in texts], dtype=pl.String)

    if not detectors:
        return rows
    return rows.with_columns(pl.col("text").map_batches(redact_each, return_dtype=pl.String(), is_elementwise=True))


def _detectors(redaction: Redaction) -> Mapping[str, Detector]:
    """Return detectors that include those of the redaction's kinds, and load only the libraries that these need."""
    detectors: dict[str, Detector] = {SECRET: without_secrets}
    if set(redaction.kinds) & set(PATTERN_KINDS):
        detectors.update(recognizers.pattern_detectors(redaction.phone_regions))
    if set(redaction.kinds) & set(NAMED_BY_MODEL):
        detectors.update(recognizers.name_detectors(redaction.model or ""))
    return detectors


def _redacted(text: str | None, detectors: Sequence[Detector]) -> str | None:
    if text is not None:
        for detector in detectors:
            text = detector(text)
    return text
