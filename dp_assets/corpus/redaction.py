"""Personal data and secrets of a recognisable form, replaced by placeholders: defence in depth, not the guarantee.

Detectors miss names, places and whatever is spelt unusually, and what one person writes about another. The guarantee
neither needs this step nor is made stronger by it. Every text is redacted by itself.

Patterns start where no longer run of the same characters began, and every repetition in them is bounded or of one
class, so that a long text costs time in proportion to its length.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address

import polars as pl

Detector = Callable[[str], str]


def redact(rows: pl.LazyFrame, *, kinds: Sequence[str]) -> pl.LazyFrame:
    """Texts without what the `kinds` of `DETECTORS` find, in the order of that table."""
    detectors = [detector for kind, detector in DETECTORS.items() if kind in kinds]

    def redact_each(texts: pl.Series) -> pl.Series:
        return pl.Series(texts.name, [_redacted(text, detectors) for text in texts], dtype=pl.String)

    if not detectors:
        return rows
    return rows.with_columns(pl.col("text").map_batches(redact_each, return_dtype=pl.String(), is_elementwise=True))


def _redacted(text: str | None, detectors: Sequence[Detector]) -> str | None:
    if text is not None:
        for detector in detectors:
            text = detector(text)
    return text


def _replacing(pattern: str, placeholder: str, is_meant: Callable[[str], bool] = lambda found: True) -> Detector:
    """Every match that `is_meant` becomes the placeholder; a group named `kept` stays in front of it."""
    compiled = re.compile(pattern, re.IGNORECASE)

    def replaced(match: re.Match[str]) -> str:
        kept = match.groupdict().get("kept") or ""
        return kept + placeholder if is_meant(match[0]) else match[0]

    return lambda text: compiled.sub(replaced, text)


def is_card_number(found: str) -> bool:
    """Whether 13 to 19 digits pass Luhn's check and are not all the same."""
    digits = [int(digit) for digit in found if digit.isdigit()]
    doubled = [
        digit if place % 2 == 0 else (2 * digit - 9 if digit > 4 else 2 * digit) for place, digit in _back(digits)
    ]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _back(digits: Sequence[int]) -> list[tuple[int, int]]:
    return list(enumerate(reversed(digits)))


def is_phone_number(found: str) -> bool:
    """Whether digits are grouped as people write telephone numbers; a bare number or a date is not meant."""
    digits = sum(character.isdigit() for character in found)
    if found.startswith(("+", "00")):
        return 8 <= digits <= 15
    grouped = re.fullmatch(r"\(?\d{2,5}\)?(?:[ ./-]{1,2}\d{1,8}){1,5}", found) is not None
    looks_like_a_date = re.match(r"(?:19|20)\d\d[./-]\d", found) is not None
    return 9 <= digits <= 13 and grouped and not looks_like_a_date and (found[0] in "(0" or digits in (10, 11))


def is_address(found: str) -> bool:
    """Whether it is an IPv4 or IPv6 address; one without a digit is more often code, such as `a::b`."""
    if not any(character.isdigit() for character in found):
        return False
    try:
        ip_address(found)
    except ValueError:
        return False
    return True


SECRET_FORMS = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS
    r"\bgh[pousr]_[0-9A-Za-z]{36,255}\b|\bgithub_pat_\w{22,255}\b|\bglpat-[\w-]{20,255}",  # GitHub, GitLab
    r"\bsk-[\w-]{20,255}|\bhf_[0-9A-Za-z]{30,255}\b|\bAIza[\w-]{35}",  # OpenAI and others, Hugging Face, Google
    r"\bxox[abeprs]-[0-9A-Za-z-]{10,255}",  # Slack
    r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,255}\b",  # Stripe
    r"\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{0,4000}",  # JSON web tokens
    r"(?P<kept>\bBearer )[\w.~+/-]{16,4000}=*",
)
ASSIGNED_SECRET = (
    r"(?P<kept>\b(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key)[\"']?"
    r"[ \t]{0,3}(?:[:=]|\bis\b)[ \t]{0,3}[\"']?)(?=[^\s\"',;]{0,40}[0-9!@#$%^&*_-])[^\s\"',;]{6,255}"
)
PASSWORD_IN_ADDRESS = r"(?P<kept>\b[a-z][a-z0-9+.-]{1,20}://)[^\s/:@]{0,100}:[^\s/@]{1,255}(?=@)"
SECRETS = [_replacing(form, "[SECRET]") for form in (*SECRET_FORMS, PASSWORD_IN_ADDRESS, ASSIGNED_SECRET)]


def _without_secrets(text: str) -> str:
    for detector in SECRETS:
        text = detector(text)
    return text


# Secrets first, since a key may hold what looks like a number; cards before the telephone numbers they resemble.
DETECTORS: Mapping[str, Detector] = {
    "secret": _without_secrets,
    "email": _replacing(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}\b", "[EMAIL]"),
    "ip": _replacing(
        r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(?![\w:])", "[IP]", is_address
    ),
    "card": _replacing(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])", "[CARD]", is_card_number),
    "phone": _replacing(r"(?<![\w.+])(?:\+|\(\d|\d)[\d ()./-]{6,22}\d(?!\w)", "[PHONE]", is_phone_number),
}
