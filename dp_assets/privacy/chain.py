"""The hash chain of the ledger.

Each entry's digest covers the entry's own fields and the digest of the previous entry. So an entry that was edited,
removed or reordered is detected. The length and the last digest are also kept outside the ledger (the anchor), so a
shortened or restored ledger is detected too. A body is stored as its canonical JSON text, and exactly these bytes are
hashed.

The last digest (the head) is published. An entry may hold facts that follow from private rows: what ran where it
differed from its plan, or how often a run was resumed. So each entry has a secret random nonce, without which nobody
can find its content by trying candidates against the head, and the number of entries stays in the private zone. Entries
of earlier versions have no nonce.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from dp_assets.privacy.errors import PublicError

GENESIS = "0" * 64
NONCE, BYTES_OF_A_NONCE = "nonce", 16


class LedgerTampered(PublicError, ValueError):
    """The stored entries differ from those that were written: the chain is broken, shortened or replaced."""


@dataclass(frozen=True)
class Anchor:
    """Length and last digest of a ledger."""

    length: int = 0
    head: str = GENESIS


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger. `text` is the canonical JSON of its body and its nonce."""

    sequence: int
    kind: str
    at: str
    text: str
    previous: str
    digest: str

    @staticmethod
    def after(head: Anchor, kind: str, at: str, body: Mapping[str, Any]) -> "Entry":
        """Return the entry that follows `head` in the chain, with a new nonce."""
        text = canonical({**body, NONCE: secrets.token_hex(BYTES_OF_A_NONCE)})
        return Entry(head.length, kind, at, text, head.head, digest(head.length, kind, at, text, head.head))

    @property
    def body(self) -> Mapping[str, Any]:
        """What the entry says, without its nonce."""
        form: dict[str, Any] = json.loads(self.text)
        form.pop(NONCE, None)
        return form


def canonical(body: Mapping[str, Any]) -> str:
    """Return the canonical JSON text of a body: keys sorted, no spaces, ASCII."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def digest(sequence: int, kind: str, at: str, text: str, previous: str) -> str:
    """Return the SHA-256 of the JSON list of these values."""
    listed = f"[{sequence},{quoted(kind)},{quoted(at)},{text},{quoted(previous)}]"
    return hashlib.sha256(listed.encode()).hexdigest()


def chain(head: Anchor, at: str, bodies: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Entry]:
    """Return the entries that follow `head`, one for each (kind, body)."""
    entries: list[Entry] = []
    for kind, body in bodies:
        entries.append(Entry.after(head, kind, at, body))
        head = Anchor(head.length + 1, entries[-1].digest)
    return entries


def verify_chain(entries: Sequence[Entry], anchors: Iterable[Anchor], *, heads: Iterable[str], known: int) -> None:
    """Check every digest, and that the entries continue every anchor and every published head.

    The first `known` entries are not checked again: the caller has verified them before, and that they did not change.

    Raises:
      LedgerTampered: an entry was edited, removed or reordered, or the ledger is shorter than an anchor.
    """
    head = entries[known - 1].digest if known else GENESIS
    for expected, entry in enumerate(entries[known:], known):
        recomputed = digest(expected, entry.kind, entry.at, entry.text, head)
        if entry.sequence != expected or entry.previous != head or entry.digest != recomputed:
            raise LedgerTampered(
                f"ledger entry {expected} does not follow from the one before; restore the real ledger"
            )
        head = recomputed
    for anchor in anchors:
        _check_anchor(entries, anchor)
    for seen in heads:
        if entries_after(entries, seen) is None:
            raise LedgerTampered(
                "the ledger lacks the entry that its released anchor has seen; it was cut or replaced by an older copy:"
                " restore the newest one"
            )


def entries_after(entries: Sequence[Entry], head: str) -> int | None:
    """Return how many entries follow the entry with this digest; None if no entry has it."""
    if head == GENESIS:
        return len(entries)
    return next((number for number, entry in enumerate(reversed(entries)) if entry.digest == head), None)


def _check_anchor(entries: Sequence[Entry], anchor: Anchor) -> None:
    if len(entries) < anchor.length:
        raise LedgerTampered(
            f"the ledger holds {len(entries)} entries but its anchor has seen {anchor.length}; it was cut or replaced"
            " by an older copy: restore the newest one"
        )
    if anchor.length and entries[anchor.length - 1].digest != anchor.head:
        raise LedgerTampered("the ledger is not the one its anchor has seen; restore the real ledger")
