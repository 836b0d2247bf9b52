"""Recognizes personal data with Microsoft Presidio, one text at a time and without a network.

Presidio's recognizers are used one by one. Each combines a pattern with a check digit, a validator or a library of
numbering plans, and needs no language model. Only names of people and places need one: a spaCy pipeline that the user
installed recognizes them, and without it they are not recognized. Nothing is downloaded.

Where Presidio reports too much, the hit is checked again (`_is_address`, `_is_telephone`). Presidio's context scores
are not used, because they need a language model too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dp_assets.corpus.columns import SourceError

Detector = Callable[[str], str]
Hit = Callable[[str, int, int], bool]

PRESIDIO, PACKAGES = "presidio_analyzer", ("presidio-analyzer", "phonenumbers", "spacy")
INSTALL = "pip install 'dp-instructions[redaction]'"
LEAST_SCORE = 0.4
"""Above the scores of Presidio's weak patterns, such as any nine digits for a social security number."""
STRICT_GROUPING = 2
FEWEST_TELEPHONE_DIGITS = 7
NAMED_BY_MODEL = ("person", "place")
PRESIDIOS_NAMES = {"person": "PERSON", "place": "LOCATION"}


def is_installed() -> bool:
    """Return whether Presidio is installed."""
    return find_spec(PRESIDIO) is not None


def is_model(name: str) -> bool:
    """Return whether `name` is an installed spaCy pipeline, or a folder that holds one."""
    if find_spec("spacy") is None:
        return False
    from spacy.util import is_package

    return is_package(name) or (Path(name) / "meta.json").is_file()


def unknown_regions(regions: Sequence[str]) -> list[str]:
    """Return those of `regions` that are not regions with a numbering plan, such as `US`."""
    from phonenumbers import SUPPORTED_REGIONS

    return [region for region in regions if region not in SUPPORTED_REGIONS]


def versions(model: str | None) -> dict[str, str]:
    """Return the versions of the recognizing packages, and of the spaCy pipeline if there is one."""
    by_package = {package: version(package) for package in PACKAGES}
    if model is not None:
        from spacy.util import get_package_path, is_package, load_meta

        meta = load_meta((get_package_path(model) if is_package(model) else Path(model)) / "meta.json")
        by_package[f"{meta['lang']}_{meta['name']}"] = str(meta["version"])
    return by_package


def pattern_detectors(regions: Sequence[str]) -> Mapping[str, Detector]:
    """Return the detectors that need no language model, in the order of replacement.

    A longer form comes before a shorter one that it may contain.

    Args:
      regions: the regions whose numbering plans apply to telephone numbers without a country code.

    Raises:
      SourceError: Presidio is not installed.
    """
    require_installed()
    from presidio_analyzer import predefined_recognizers as known

    telephone = known.PhoneRecognizer(supported_regions=tuple(regions), leniency=STRICT_GROUPING)
    return {
        "email": _replacing("EMAIL", _offline_email_recognizer(), needs="@"),
        "iban": _replacing("IBAN", known.IbanRecognizer(), fewest_digits=10),
        "crypto": _replacing("CRYPTO", known.CryptoRecognizer(), fewest_digits=1),
        "ip": _replacing("IP", known.IpRecognizer(), _is_address, fewest_digits=1),
        "card": _replacing("CARD", known.CreditCardRecognizer(), fewest_digits=12),
        "ssn": _replacing("SSN", known.UsSsnRecognizer(), fewest_digits=9),
        "phone": _replacing("PHONE", telephone, _is_telephone, fewest_digits=FEWEST_TELEPHONE_DIGITS),
    }


def name_detectors(model: str) -> Mapping[str, Detector]:
    """Return detectors of people and places that use the named entities of an installed spaCy pipeline.

    Raises:
      SourceError: Presidio or the pipeline is not installed.
    """
    require_installed()
    if not is_model(model):  # else Presidio would download it
        raise SourceError(f"corpus.redaction_model {model!r} is not installed: {how_to_get(model)}")
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    from spacy import load

    pipeline = load(model)
    language = pipeline.lang
    engine = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model}])
    engine.nlp = {language: pipeline}

    def detector(kind: str) -> Detector:
        recognizer = SpacyRecognizer(supported_language=language, supported_entities=[PRESIDIOS_NAMES[kind]])
        return _replacing(kind.upper(), recognizer, artifacts_of=lambda text: engine.process_text(text, language))

    return {kind: detector(kind) for kind in NAMED_BY_MODEL}


def how_to_get(model: str) -> str:
    """Return the remedy for a spaCy pipeline that is not installed."""
    return f"python -m spacy download {model}, or give the folder of one"


def require_installed() -> None:
    """Require Presidio.

    Raises:
      SourceError: it is not installed.
    """
    if not is_installed():
        raise SourceError(f"corpus.redact needs the package presidio-analyzer: {INSTALL}")


def _offline_email_recognizer() -> Any:
    """Return Presidio's email recognizer with tldextract's packaged suffix list, so that no newer one is fetched."""
    from presidio_analyzer.predefined_recognizers import EmailRecognizer
    from tldextract import TLDExtract

    packaged_list = TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(EmailRecognizer):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(packaged_list(pattern_text).fqdn)

    return OfflineEmailRecognizer()


def _replacing(
    placeholder: str,
    recognizer: Any,
    is_meant: Hit = lambda text, start, end: True,
    *,
    needs: str = "",
    fewest_digits: int = 0,
    artifacts_of: Callable[[str], Any] = lambda text: None,
) -> Detector:
    """Return a detector that replaces every hit with a sufficient score that `is_meant` confirms.

    Args:
      placeholder: what replaces a hit, without its brackets.
      recognizer: one of Presidio's.
      is_meant: a second check of a hit: the text, its start and its end.
      needs: a text without it holds no hit and is not analyzed, which saves most of the time.
      fewest_digits: likewise for a text with fewer digits.
      artifacts_of: what the recognizer needs to know of a text from a language model.
    """

    def detector(text: str) -> str:
        if needs not in text or sum(map(str.isdigit, text)) < fewest_digits:
            return text
        hits = recognizer.analyze(text, recognizer.supported_entities, artifacts_of(text))
        spans = [(hit.start, hit.end) for hit in hits if hit.score >= LEAST_SCORE]
        return _with_placeholders(text, [span for span in spans if is_meant(text, *span)], f"[{placeholder}]")

    return detector


def _with_placeholders(text: str, spans: Sequence[tuple[int, int]], placeholder: str) -> str:
    """Return the text with each span, or run of overlapping spans, replaced."""
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], placeholder]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _is_address(text: str, start: int, end: int) -> bool:
    """Return whether a hit has a digit and is not part of a longer dotted number.

    A hit without digits, such as `a::b`, is more often code than an address.
    """
    inside_number = re.search(r"\d\.$", text[max(0, start - 2) : start]) or re.match(r"\.\d", text[end : end + 2])
    return inside_number is None and any(character.isdigit() for character in text[start:end])


def _is_telephone(text: str, start: int, end: int) -> bool:
    """Return whether a hit is as long as a usual telephone number, and not a decimal.

    Numbering plans also contain short numbers, and decimals look like those.
    """
    hit = text[start:end]
    return sum(map(str.isdigit, hit)) >= FEWEST_TELEPHONE_DIGITS and not re.fullmatch(r"\d+\.\d+", hit)
