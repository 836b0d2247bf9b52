"""Replaces keys, tokens and passwords of a recognizable form by `[SECRET]`.

The patterns are our own. Secret scanners for source code know more forms, but they report that a line holds a secret
and not where it ends: they return the first line of a private key, or the prefix of a token.

The time is linear in the length of the text: a pattern cannot start inside a longer run of the same characters, and
every repetition in it is bounded or over one character class.
"""

import re

PLACEHOLDER = "[SECRET]"
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
SECRETS = [re.compile(form, re.IGNORECASE) for form in (*SECRET_FORMS, PASSWORD_IN_ADDRESS, ASSIGNED_SECRET)]


def without_secrets(text: str) -> str:
    """Return the text with every secret replaced. The match of a group named `kept` stays before the placeholder."""
    for form in SECRETS:
        text = form.sub(_replaced, text)
    return text


def _replaced(match: re.Match[str]) -> str:
    return (match.groupdict().get("kept") or "") + PLACEHOLDER
