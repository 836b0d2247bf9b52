"""A digest covers every character of an entry: its kind, its time, and each field of its body."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from dp_assets.privacy.chain import Anchor, Entry, LedgerTampered, canonical, chain, digest, verify_chain
from dp_assets.privacy.plan import GENERATOR
from tests.statements.statements import CORPUS, charged

SETTLED = {"charge_id": GENERATOR, "evidence": {"steps": 4}}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("registered", CORPUS.to_json()),
    ("charged", charged(GENERATOR)),
    ("settled", SETTLED),
    ("raised", {"corpus_id": "corpus", "budget_epsilon": 12.0, "reason": "-"}),
    ("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": ["steps: planned 4, ran 5"]}),
]


def anchor_of(entries: list[Entry]) -> Anchor:
    """The anchor of a whole ledger."""
    return Anchor(len(entries), entries[-1].digest) if entries else Anchor()


def edited(value: Any) -> Iterator[Any]:
    """The value with one leaf of it changed, for each leaf."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from ({**value, name: other} for other in edited(inner))
    elif isinstance(value, list | tuple) and value:
        for place, inner in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in edited(inner))
    else:
        yield "edited"


@pytest.mark.parametrize("place", range(len(BODIES)))
def test_an_edit_of_any_field_of_a_body_breaks_the_chain_events_too(place: int) -> None:
    entries = chain(Anchor(), "2026-11-24", BODIES)
    verify_chain(entries, [], heads=[], known=0)
    edits = list(edited(dict(entries[place].body)))
    assert len(edits) >= len(BODIES[place][1])
    for body in edits:
        with pytest.raises(LedgerTampered):
            verify_chain(
                [*entries[:place], replace(entries[place], text=canonical(body)), *entries[place + 1 :]],
                [],
                heads=[],
                known=0,
            )


@pytest.mark.parametrize("field", ["sequence", "kind", "at", "text", "previous", "digest"])
def test_an_edit_of_any_field_of_an_entry_breaks_the_chain(field: str) -> None:
    entries = chain(Anchor(), "2026-11-24", BODIES)
    other = 7 if field == "sequence" else "edited"
    with pytest.raises(LedgerTampered):
        verify_chain([*entries[:-1], replace(entries[-1], **{field: other})], [], heads=[], known=0)


def test_the_event_of_a_charge_is_in_what_is_hashed() -> None:
    first, second = (
        Entry.after(Anchor(), "charged", "now", charged(GENERATOR, event=event)) for event in ({}, {"a": 1})
    )
    same_nonce = replace(second, text=first.text)
    assert asdict(first)["text"] != second.text
    with pytest.raises(LedgerTampered):
        verify_chain([same_nonce], [], heads=[], known=0)


def test_a_digest_is_the_hash_of_the_whole_entry_and_of_the_digest_before_it() -> None:
    for entry in chain(Anchor(), "2026-11-24", BODIES):
        listed = [entry.sequence, entry.kind, entry.at, json.loads(entry.text), entry.previous]
        text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
        assert entry.digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("place", range(len(BODIES)))
def test_an_edit_changes_the_head_though_every_digest_from_it_on_is_made_anew(place: int) -> None:
    entries = chain(Anchor(), "2026-11-24", BODIES)
    forged = entries[:place]
    for entry in [replace(entries[place], at="edited"), *entries[place + 1 :]]:
        head = anchor_of(forged).head
        renewed = digest(entry.sequence, entry.kind, entry.at, entry.text, head)
        forged.append(replace(entry, previous=head, digest=renewed))
    verify_chain(forged, [], heads=[], known=0)
    with pytest.raises(LedgerTampered, match="not the one its anchor"):
        verify_chain(forged, [anchor_of(entries)], heads=[], known=0)


def test_an_entry_that_is_removed_or_moved_breaks_the_chain() -> None:
    entries = chain(Anchor(), "2026-11-24", BODIES)
    for left in (entries[1:], [*entries[:2], *entries[3:]], [entries[1], entries[0], *entries[2:]]):
        with pytest.raises(LedgerTampered):
            verify_chain(left, [], heads=[], known=0)


def test_a_ledger_must_hold_what_its_anchor_and_every_published_head_have_seen() -> None:
    entries = chain(Anchor(), "2026-11-24", BODIES)
    anchor = Anchor(len(entries), entries[-1].digest)
    verify_chain(entries, [anchor], heads=[entries[2].digest], known=0)
    with pytest.raises(LedgerTampered, match="anchor has seen 5"):
        verify_chain(entries[:-1], [anchor], heads=[], known=0)
    with pytest.raises(LedgerTampered, match="not the one its anchor"):
        verify_chain(chain(Anchor(), "2026-11-24", BODIES), [anchor], heads=[], known=0)
    with pytest.raises(LedgerTampered, match="released anchor"):
        verify_chain(entries[:-1], [], heads=[entries[-1].digest], known=0)
