"""Neighboring source files: the same rows with and without one more unit, the newcomer.

Two files are neighbors when one holds all rows of one more privacy unit. They are compared from the file on, through
everything that reads real rows: source, preparation, tokens or embeddings, mechanism. A newcomer is written in front
of the others, behind them or among them, with whatever a person or a broken exporter may put there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase

from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.columns import understood
from dp_assets.corpus.prepare import Preparation, prepare
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.sources import FileSource
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.generation.prompts import generator_prompt_ids
from dp_assets.generation.token_rows import RowEncoder, unit_rows
from dp_assets.privacy.units import PrivacyUnit

Row = Mapping[str, Any]
KEY = b"the key of a private zone"
COLUMNS = {"text": "prompt", "user_id": "user", "created_at": "when"}
MAX_ROWS, MAX_WORDS, MAX_TOKENS = 3, 60, 48
PLACES = ("front", "middle", "end")
VERBS = ("bake", "paint", "learn", "fix", "draw", "sing", "grow", "sell", "clean", "build", "choose", "store")
THINGS = ("bread", "guitars", "gravity", "cats", "books", "the sky", "a house", "tea", "old maps", "my bike")
POISON = "§"  # no other text holds it, and each of its two bytes is a token of the tiny model
NOBODY: Row = {"prompt": "who am i to write this?", "user": None, "when": "2026-01-02"}


def others(num_users: int = 24) -> list[Row]:
    """Rows of `num_users` users with one to four rows each, and one row that names nobody; no text occurs twice."""
    rows = [
        {
            "prompt": _question(user, row),
            "user": f"user-{user}",
            "when": f"2026-0{1 + row}-1{user % 10}",
        }
        for user in range(num_users)
        for row in range(1 + user % 4)
    ]
    return [*rows[: len(rows) // 3], NOBODY, *rows[len(rows) // 3 :]]


def _question(user: int, row: int) -> str:
    what = f"{VERBS[user % len(VERBS)]} {THINGS[(user + row) % len(THINGS)]}"
    return f"how do i {what} {'very ' * (user % 5)}well, part {row} of {user}?"


def _by(user: str | None, *texts: str | None, when: str | None = "2026-02-03") -> list[Row]:
    return [{"prompt": text, "user": user, "when": when} for text in texts]


LENGTHS = [("please " * words + "explain this") for words in (0, 3, 11, 29, 57)]
"""Of one person: 2 to 59 words, five texts where `MAX_ROWS` are kept."""

NEWCOMERS: Mapping[PrivacyUnit, Mapping[str, list[Row]]] = {
    PrivacyUnit.USER: {
        "one row": _by("newcomer", "what is a newcomer?"),
        "rows of very different lengths": _by("newcomer", *LENGTHS),
        "malformed rows beside a good one": [
            *_by("newcomer", None, "", "one", "\ufeff\x00", "is this good?"),
            *_by("newcomer", "is this read?", when="soon"),
        ],
        "nothing but malformed rows": _by("newcomer", None, " ", "\x1f\x1f", when="25:61"),
        "the texts of another user": [dict(row, user="newcomer") for row in others() if row["user"] == "user-3"],
        "enormous texts": _by("newcomer", "word " * 100_000, "x" * 1_000_000, "an " + "e" * 1_900 + "normous word"),
        "a gradient that is not finite": _by("newcomer", f"what does {POISON} mean?", f"{POISON} and {POISON}"),
    },
    PrivacyUnit.INSTRUCTION: {
        "one row": _by("user-1", "what is a newcomer?"),
        "the same row written three times": _by(None, *["what is a newcomer?"] * 3),
        "a malformed time": _by(None, "is this good?", when="25:61"),
        "no text": _by("user-1", None),
        "the text of another row": [dict(NOBODY, user="user-1")],
        "an enormous text": _by(None, "an " + "e" * 1_900 + "normous word"),
        "a text beyond the bounds": _by("user-1", "word " * 100_000),
        "a gradient that is not finite": _by("user-1", f"what does {POISON} mean?"),
    },
}
CASES = [(unit, name) for unit, newcomers in NEWCOMERS.items() for name in newcomers]
BROKEN_LINES = (
    b"{not json",
    b'{"prompt": "cut off in the mid',
    b'{"prompt": "a lone surrogate \\ud800", "user": "newcomer"}',
    b'{"prompt": "no such escape \\uZZZZ", "user": "newcomer"}',
    b'{"prompt": "raw bytes \xff\xfe here", "user": "newcomer"}',
    b'{"prompt": "a raw separator \x1f here", "user": "newcomer"}',
    b'{"prompt": {"nested": 1}, "user": 5}',
    b'"',
    b"[]",
    b"",
    b"\x00",
    b"[" * 5_000,
    b"[",
    b"[{",
    b"{",
    b"\xff\xfe",
    b"\xff\xfe\x00\x00",
    b"\x00{\x00",
)
"""Lines of a JSON lines file that do not parse, or parse to something else than a row of texts."""

BROKEN_CSV_ROWS = (
    '"unmatched,newcomer,2026-02-03',
    'unmatched,"newcomer,2026-02-03',
    'unmatched,newcomer,"2026-02-03',
    '"',
    '""",,',
    '"text" and more,newcomer,2026-02-03',
    r'"escaped \" quote",newcomer,2026-02-03',
    r'"escaped at the end \"",newcomer,2026-02-03',
    "a text, with commas, and no quotes,newcomer,2026-02-03",
    "too few",
    ",,",
    "\x00,\x00,\x00",
)
"""Lines of a CSV file with three columns that are no row, or one with odd quotes."""


def joined(rows: Sequence[Any], newcomer: Sequence[Any], place: str = "front") -> list[Any]:
    """`rows` with the newcomer's rows; in the middle they lie one by one among the others."""
    if place == "front":
        return [*newcomer, *rows]
    if place == "end":
        return [*rows, *newcomer]
    half = len(rows) // 2
    mixed = [row for pair in zip(newcomer, rows[half:], strict=False) for row in pair]
    return [*rows[:half], *mixed, *newcomer[len(rows) - half :], *rows[half + len(newcomer) :]]


def as_lines(rows: Sequence[Row]) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def write(path: Path, rows: Sequence[Row]) -> Path:
    """The rows as a file of the kind that the suffix names."""
    if path.suffix == ".jsonl":
        path.write_bytes(b"\n".join(as_lines(rows)))
        return path
    frame = pl.DataFrame(list(rows), schema=dict.fromkeys(COLUMNS.values(), pl.String()))
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def prepared(path: Path, unit: PrivacyUnit, *, train_fraction: float = 1.0) -> pl.DataFrame:
    """`real_instructions` of a source file."""
    return prepare(
        understood(FileSource(path, COLUMNS).scan()),
        Preparation(
            unit=unit,
            key=KEY,
            max_rows_per_unit=MAX_ROWS if unit is PrivacyUnit.USER else 1,
            min_words=2,
            max_words=MAX_WORDS,
            max_characters=2_000,
            languages=None,
            cohort_of=cohort_expr(CohortSettings(), unit=unit),
            train_fraction=train_fraction,
        ),
    ).collect()


@dataclass(frozen=True)
class Neighbors:
    """Two prepared corpora, one of which holds one more unit, the newcomer."""

    without: pl.DataFrame
    joined: pl.DataFrame

    @property
    def newcomer(self) -> str | None:
        """The id of the newcomer, None where none of its rows stay."""
        more = set(self.joined["unit_id"]) - set(self.without["unit_id"])
        assert len(more) <= 1, "the newcomer is more than one unit"
        return more.pop() if more else None


def neighbors(
    folder: Path,
    unit: PrivacyUnit,
    case: str,
    *,
    place: str = "front",
    suffix: str = ".jsonl",
    train_fraction: float = 1.0,
    num_users: int = 24,
) -> Neighbors:
    """Both source files of a case, read and prepared."""
    rows = others(num_users)
    files = write(folder / f"without{suffix}", rows), folder / f"joined{suffix}"
    write(files[1], joined(rows, NEWCOMERS[unit][case], place))
    return Neighbors(*(prepared(file, unit, train_fraction=train_fraction) for file in files))


def token_rows(table: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[TokenRow]]:
    """The rows of each unit as private training reads them."""
    prompt_ids = tuple(generator_prompt_ids(tokenizer, prompt="user_turn"))
    units = unit_rows(table.lazy(), RowEncoder(tokenizer, prompt_ids, MAX_TOKENS))
    return {unit_id: list(rows) for unit_id, rows in units.items()}
