"""Personal data as Microsoft Presidio recognises it, one text at a time and without a network.

Presidio's recognisers are used by themselves: each is a pattern with a check digit, a validator or a library of
numbering plans behind it and needs no language model. Only names of people and places do, so those are recognised by
a spaCy pipeline that the user installed, and by none otherwise; nothing is downloaded.

Where Presidio is too eager the hit is looked at again (`_is_address`, `_is_telephone`). Its scores of context are not
used, because they need a language model too.
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
"""Patterns that Presidio calls weak lie below it, such as any nine digits for a social security number."""
STRICT_GROUPING = 2
FEWEST_TELEPHONE_DIGITS = 7
NAMED_BY_MODEL = ("person", "place")
PRESIDIOS_NAMES = {"person": "PERSON", "place": "LOCATION"}


def is_installed() -> bool:
    return find_spec(PRESIDIO) is not None


def is_model(name: str) -> bool:
    """Whether a spaCy pipeline of this name is installed, or lies in a folder of this name."""
    if find_spec("spacy") is None:
        return False
    from spacy.util import is_package

    return is_package(name) or (Path(name) / "meta.json").is_file()


def unknown_regions(regions: Sequence[str]) -> list[str]:
    """Those that are no region with a numbering plan, such as `US`."""
    from phonenumbers import SUPPORTED_REGIONS

    return [region for region in regions if region not in SUPPORTED_REGIONS]


def versions(model: str | None) -> dict[str, str]:
    """The versions of what recognises: of the packages, and of the spaCy pipeline if there is one."""
    found = {package: version(package) for package in PACKAGES}
    if model is not None:
        from spacy.util import get_package_path, is_package, load_meta

        meta = load_meta((get_package_path(model) if is_package(model) else Path(model)) / "meta.json")
        found[f"{meta['lang']}_{meta['name']}"] = str(meta["version"])
    return found


def pattern_detectors(regions: Sequence[str]) -> Mapping[str, Detector]:
    """What needs no language model, in the order in which it is replaced: a longer form before one that it may hold.

    Args:
      regions: whose numbering plans tell a telephone number that names no country.

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
    """People and places by the named entities of an installed spaCy pipeline, each text by itself.

    Raises:
      SourceError: Presidio or the pipeline is not installed.
    """
    require_installed()
    if not is_model(model):  # or Presidio would download it
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
    return f"python -m spacy download {model}, or give the folder of one"


def require_installed() -> None:
    if not is_installed():
        raise SourceError(f"corpus.redact needs the package presidio-analyzer: {INSTALL}")


def _offline_email_recognizer() -> Any:
    """Presidio's, with the list of domain endings that comes with tldextract; its own would fetch a newer one."""
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
    """Everything that the recogniser is sure of and `is_meant` confirms, replaced.

    A text without `needs` or with fewer digits holds nothing of the kind and is not analysed, which saves most of the
    time.
    """

    def detector(text: str) -> str:
        if needs not in text or sum(map(str.isdigit, text)) < fewest_digits:
            return text
        hits = recognizer.analyze(text, recognizer.supported_entities, artifacts_of(text))
        spans = [(hit.start, hit.end) for hit in hits if hit.score >= LEAST_SCORE]
        return _with_placeholders(text, [span for span in spans if is_meant(text, *span)], f"[{placeholder}]")

    return detector


def _with_placeholders(text: str, spans: Sequence[tuple[int, int]], placeholder: str) -> str:
    """The text with each span, or run of overlapping ones, replaced."""
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], placeholder]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _is_address(text: str, start: int, end: int) -> bool:
    """An address with a digit that is no part of a longer dotted number; `a::b` is code more often than an address."""
    inside_number = re.search(r"\d\.$", text[max(0, start - 2) : start]) or re.match(r"\.\d", text[end : end + 2])
    return inside_number is None and any(character.isdigit() for character in text[start:end])


def _is_telephone(text: str, start: int, end: int) -> bool:
    """A number as long as people give theirs; numbering plans have short ones too, and a decimal looks like one."""
    found = text[start:end]
    return sum(map(str.isdigit, found)) >= FEWEST_TELEPHONE_DIGITS and not re.fullmatch(r"\d+\.\d+", found)
