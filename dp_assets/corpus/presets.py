"""Public chat data sets of the Hugging Face hub: how their rows become first user turns, and which rows are left out.

The steps are those of the paper (language, redaction, moderation). Each is a function of one row and can be switched
off. The paper uses the moderation record of the last turn although it keeps the first; here `drop_flagged` says which
turn counts, and `any` is the careful choice. A row without a record counts as neither flagged nor redacted.

Left out: the paper's removal of near duplicates, which compares rows across users (see `prepare.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from dp_assets.corpus.language_names import language_code, language_of
from dp_assets.corpus.settings import PresetSteps, Turn

NEVER: Turn = "never"
TOXIC = 0.5
"""A classifier's score of at least this counts as a flag."""


@dataclass(frozen=True)
class Preset:
    """How to read one data set.

    columns     our column names to the data set's
    needed      further columns that the steps use
    flagged     whether moderation flagged the given turn
    redacted    whether the providers redacted the row; None if they do not say
    is_opening  whether the row starts a conversation with a user's turn
    """

    columns: Mapping[str, str]
    needed: Sequence[str]
    flagged: Callable[[Turn], pl.Expr]
    redacted: pl.Expr | None = None
    is_opening: pl.Expr = field(default_factory=lambda: pl.lit(True))

    @property
    def read(self) -> list[str]:
        """Every column to read."""
        return sorted({*self.columns.values(), *self.needed})

    def steps(self, rows: pl.LazyFrame, settings: PresetSteps) -> pl.LazyFrame:
        """Return the rows that the steps leave. Each row is judged by itself. No `languages` means all of them."""
        remaining = rows.filter(self.is_opening)
        if settings.languages:
            codes = [language_of(language) for language in settings.languages]
            remaining = remaining.filter(language_code(pl.col(self.columns["language"])).is_in(codes))
        if settings.drop_redacted and self.redacted is not None:
            remaining = remaining.filter(~self.redacted.fill_null(False))
        if settings.drop_flagged != NEVER:
            remaining = remaining.filter(~self.flagged(settings.drop_flagged).fill_null(False))
        return remaining


def _flag_of_turn(turn: Turn) -> pl.Expr:
    """Return the flag in `openai_moderation`, a list with a record for each turn."""
    flags = pl.col("openai_moderation").list.eval(pl.element().struct.field("flagged"))
    return {"any": flags.list.any(), "first": flags.list.first(), "last": flags.list.last()}[turn]


def _wildchat_flag(turn: Turn) -> pl.Expr:
    """Return whether OpenAI's moderation or, in `toxic`, a second classifier flagged the turn."""
    toxic = pl.col("conversation").list.eval(pl.element().struct.field("toxic"))
    judged = {"any": pl.col("toxic"), "first": toxic.list.first(), "last": toxic.list.last()}[turn]
    return _flag_of_turn(turn).fill_null(False) | judged.fill_null(False)


def _flag_of_prompt(turn: Turn) -> pl.Expr:
    """Return the flag of the whole conversation, which has one record."""
    return pl.col("openai_moderation").struct.field("flagged")


def _oasst_flag(turn: Turn) -> pl.Expr:
    """Return whether a row, which is one turn, was deleted, rejected by reviewers, or toxic to the classifier."""
    scores = pl.max_horizontal(pl.col("detoxify").struct.field("*"))
    turned_down = ~pl.col("review_result").fill_null(True)
    return pl.col("deleted").fill_null(False) | turned_down | (scores >= TOXIC).fill_null(False)


PRESETS: Mapping[str, Preset] = {
    "lmsys/lmsys-chat-1m": Preset(
        columns={"instruction_id": "conversation_id", "text": "conversation", "language": "language"},
        needed=("redacted", "openai_moderation"),
        redacted=pl.col("redacted"),
        flagged=_flag_of_turn,
    ),
    "lmsys/chatbot_arena_conversations": Preset(
        columns={
            "instruction_id": "question_id",
            "user_id": "judge",  # who asked the question and compared the answers
            "text": "conversation_a",  # both conversations open with the same question
            "language": "language",
            "created_at": "tstamp",
        },
        needed=("openai_moderation",),
        flagged=_flag_of_prompt,
    ),
    "OpenAssistant/oasst1": Preset(
        columns={
            "instruction_id": "message_id",
            "user_id": "user_id",
            "text": "text",
            "language": "lang",
            "created_at": "created_date",
        },
        needed=("parent_id", "role", "deleted", "review_result", "detoxify"),
        flagged=_oasst_flag,
        is_opening=pl.col("parent_id").is_null() & (pl.col("role") == "prompter"),
    ),
    "allenai/WildChat-1M": Preset(
        columns={
            "instruction_id": "conversation_hash",
            "user_id": "hashed_ip",
            "text": "conversation",
            "language": "language",
            "created_at": "timestamp",
        },
        needed=("redacted", "openai_moderation", "toxic"),
        redacted=pl.col("redacted"),
        flagged=_wildchat_flag,
    ),
}
