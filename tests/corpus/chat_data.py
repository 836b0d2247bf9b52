"""Small rows in the real schemas of the data sets that have a preset, as Parquet in the layout of the hub.

Columns and types are those of the published dataset cards; the categories of moderation are cut to two.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

Rows = Sequence[dict[str, Any]]

NOON = datetime(2023, 5, 1, 12, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
MESSAGES = pl.List(pl.Struct({"content": pl.String, "role": pl.String}))
MODERATION = pl.Struct(
    {
        "categories": pl.Struct({"harassment": pl.Boolean, "self-harm/intent": pl.Boolean}),
        "category_scores": pl.Struct({"harassment": pl.Float64, "self-harm/intent": pl.Float64}),
        "flagged": pl.Boolean,
    }
)
HEADER = pl.Struct({"accept-language": pl.String, "user-agent": pl.String})
SCHEMAS: dict[str, dict[str, Any]] = {
    "lmsys/lmsys-chat-1m": {
        "conversation_id": pl.String,
        "model": pl.String,
        "conversation": MESSAGES,
        "turn": pl.Int64,
        "language": pl.String,
        "openai_moderation": pl.List(MODERATION),
        "redacted": pl.Boolean,
    },
    "lmsys/chatbot_arena_conversations": {
        "question_id": pl.String,
        "model_a": pl.String,
        "model_b": pl.String,
        "winner": pl.String,
        "judge": pl.String,
        "conversation_a": MESSAGES,
        "conversation_b": MESSAGES,
        "turn": pl.Int64,
        "anony": pl.Boolean,
        "language": pl.String,
        "tstamp": pl.Float64,
        "openai_moderation": MODERATION,
        "toxic_chat_tag": pl.Struct(
            {
                "roberta-large": pl.Struct({"flagged": pl.Boolean, "probability": pl.Float64}),
                "t5-large": pl.Struct({"flagged": pl.Boolean, "score": pl.Float64}),
            }
        ),
    },
    "OpenAssistant/oasst1": {
        "message_id": pl.String,
        "parent_id": pl.String,
        "user_id": pl.String,
        "created_date": pl.String,
        "text": pl.String,
        "role": pl.String,
        "lang": pl.String,
        "review_count": pl.Int32,
        "review_result": pl.Boolean,
        "deleted": pl.Boolean,
        "rank": pl.Int32,
        "synthetic": pl.Boolean,
        "model_name": pl.String,
        "detoxify": pl.Struct(
            {
                name: pl.Float64
                for name in (
                    *("toxicity", "severe_toxicity", "obscene", "identity_attack"),
                    *("insult", "threat", "sexual_explicit"),
                )
            }
        ),
        "message_tree_id": pl.String,
        "tree_state": pl.String,
        "emojis": pl.Struct({"name": pl.List(pl.String), "count": pl.List(pl.Int32)}),
        "labels": pl.Struct({"name": pl.List(pl.String), "value": pl.List(pl.Float64), "count": pl.List(pl.Int32)}),
    },
    "allenai/WildChat-1M": {
        "conversation_hash": pl.String,
        "model": pl.String,
        "timestamp": TIME,
        "conversation": pl.List(
            pl.Struct(
                {
                    "content": pl.String,
                    "country": pl.String,
                    "hashed_ip": pl.String,
                    "header": HEADER,
                    "language": pl.String,
                    "redacted": pl.Boolean,
                    "role": pl.String,
                    "state": pl.String,
                    "timestamp": TIME,
                    "toxic": pl.Boolean,
                    "turn_identifier": pl.Int64,
                }
            )
        ),
        "turn": pl.Int64,
        "language": pl.String,
        "openai_moderation": pl.List(MODERATION),
        "detoxify_moderation": pl.List(pl.Struct({"toxicity": pl.Float64, "insult": pl.Float64})),
        "toxic": pl.Boolean,
        "redacted": pl.Boolean,
        "state": pl.String,
        "country": pl.String,
        "hashed_ip": pl.String,
        "header": HEADER,
    },
}


def write_data_set(folder: Path, preset: str, rows: Rows, *, split: str = "train") -> Path:
    """A local copy of a data set in the hub's layout."""
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(list(rows), schema=SCHEMAS[preset], strict=True).write_parquet(file)
    return folder


def talk(*user_turns: str, toxic: Sequence[bool] = ()) -> list[dict[str, Any]]:
    """A conversation in which the assistant answers each turn; with `toxic`, a flag for each message."""
    messages = [
        {"role": role, "content": content}
        for turn in user_turns
        for role, content in (("user", turn), ("assistant", f"Answer to {turn}"))
    ]
    return [message | {"toxic": flag} for message, flag in zip(messages, toxic, strict=True)] if toxic else messages


def moderated(*flags: bool | None) -> list[dict[str, Any]]:
    """A moderation record for each turn."""
    return [{"flagged": flag} for flag in flags]


def wanted_and_unwanted(preset: str) -> tuple[Rows, Rows]:
    """Rows that the steps keep, with the text "Keep <i>?", and rows that one step each drops."""
    return {
        "lmsys/lmsys-chat-1m": _lmsys,
        "lmsys/chatbot_arena_conversations": _arena,
        "OpenAssistant/oasst1": _oasst,
        "allenai/WildChat-1M": _wildchat,
    }[preset]()


def _lmsys() -> tuple[Rows, Rows]:
    def row(name: str, **changed: Any) -> dict[str, Any]:
        talked = talk(f"{name}?", "And then?")
        record = {"conversation_id": name, "conversation": talked, "openai_moderation": moderated(False, False)}
        return record | {"language": "English", "redacted": False, "turn": 2, "model": "m"} | changed

    kept = [row("Keep 0"), row("Keep 1", openai_moderation=[], redacted=None)]
    dropped = [
        row("foreign", language="German"),
        row("redacted", redacted=True),
        row("flagged first", openai_moderation=moderated(True, False)),
        row("flagged last", openai_moderation=moderated(False, True)),
    ]
    return kept, dropped


def _arena() -> tuple[Rows, Rows]:
    def row(name: str, **changed: Any) -> dict[str, Any]:
        talked = {"conversation_a": talk(f"{name}?"), "conversation_b": talk(f"{name}?")}
        facts = {"question_id": name, "judge": "arena_user_7", "tstamp": NOON.timestamp() + 0.25, "language": "English"}
        return talked | facts | {"openai_moderation": {"flagged": False}, "anony": True} | changed

    kept = [row("Keep 0"), row("Keep 1", openai_moderation=None)]
    return kept, [row("foreign", language="French"), row("flagged", openai_moderation={"flagged": True})]


def _oasst() -> tuple[Rows, Rows]:
    def row(name: str, **changed: Any) -> dict[str, Any]:
        facts = {"message_id": name, "user_id": "u-7", "text": f"{name}?", "role": "prompter", "lang": "en"}
        dates = {"created_date": "2023-05-01T12:00:00.250000+00:00", "parent_id": None}
        return facts | dates | {"deleted": False, "review_result": True, "detoxify": {"toxicity": 0.01}} | changed

    kept = [row("Keep 0"), row("Keep 1", detoxify=None, review_result=None)]
    dropped = [
        row("a later turn", parent_id="Keep 0"),
        row("an answer", role="assistant", parent_id="Keep 0"),
        row("foreign", lang="es"),
        row("deleted", deleted=True),
        row("turned down", review_result=False),
        row("toxic", detoxify={"insult": 0.9}),
    ]
    return kept, dropped


def _wildchat() -> tuple[Rows, Rows]:
    def row(name: str, *, toxic: Sequence[bool] = (False,) * 4, **changed: Any) -> dict[str, Any]:
        facts = {"conversation_hash": name, "hashed_ip": "0a1b", "timestamp": NOON, "language": "English"}
        talked = {"conversation": talk(f"{name}?", "And then?", toxic=toxic), "toxic": any(toxic)}
        return facts | talked | {"openai_moderation": moderated(False, False), "redacted": False} | changed

    kept = [row("Keep 0"), row("Keep 1", openai_moderation=None, toxic=(False,) * 4)]
    dropped = [
        row("foreign", language="Russian"),
        row("redacted", redacted=True),
        row("flagged", openai_moderation=moderated(False, True)),
        row("toxic", toxic=(False, False, True, False)),
    ]
    return kept, dropped
