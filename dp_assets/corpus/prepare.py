"""From source rows to `real_instructions`: cleaned, with privacy units, bounded contributions, cohorts and splits.

Guarantee: every step maps one unit's rows to rows without looking at another unit. Adding or removing a unit adds or
removes its at most `max_rows_per_unit` rows and changes nothing else, whatever the order of the source. That is what
lets the privacy of a mechanism over the prepared rows be a statement about the source.

A unit is a user where the row names one, else the row itself, unless such rows are dropped; `users.py` says how ids are
spelt. A row that is its own unit is known by what the source holds of it, before any setting touches it, so two unnamed
rows that agree in all of that are one unit: telling them apart would need their position, which depends on other rows.

Left out: duplicates across units (the paper's released code drops a text that shares a 10-gram with an earlier one, so
one more log entry can delete many), quality and safety filters, and cutting; a text that is too long is dropped.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.corpus.hashing import keyed_hash_of
from dp_assets.corpus.language import detect_languages
from dp_assets.corpus.language_names import language_code, language_of
from dp_assets.corpus.redaction import Redaction, redact
from dp_assets.corpus.schemas import REAL_INSTRUCTIONS, SOURCE_ROWS, check_schema
from dp_assets.corpus.users import canonical_user_ids
from dp_assets.privacy.units import PrivacyUnit, WithoutUser, keyed_hash

TEST_SPLIT = "test"
HASHED_BITS = 60
NOTHING_REDACTED = Redaction()
OWN_UNIT_COLUMNS = ("user_id", "text", "created_at", "instruction_id")
"""What tells a row that is a unit of its own from others: as the source has it, in columns that are registered."""


@dataclass(frozen=True)
class Step:
    """One step of the preparation; `drops` says for people which rows it takes away, None if it takes none."""

    run: Callable[[pl.LazyFrame], pl.LazyFrame]
    drops: str | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The steps from source rows to prepared ones, and their public settings.

    unit             with `instruction`, every row is a unit of its own, whoever wrote it
    without_user     what becomes of rows that name nobody where users are the units
    key              the private zone's key, 1 to 64 bytes; decides ids, which rows are kept, and the split
    max_rows_per_unit    the contribution bound
    min_words, max_words, max_characters    bounds of the normalised text, inclusive
    languages        keep these only, so that a row without a language is dropped; None keeps all rows
    cohort_of        the cohort from `unit_id` and `created_at` (see `cohort_expr`); null drops the row
    train_fraction   the expected share of units in the split `train`
    detect_language  fill in the language of rows that name none
    redaction        what is replaced by placeholders. Everything after it is as if the source had held the redacted
                     texts, but for the ids of units; the bounds of length hold before it
    """

    unit: PrivacyUnit
    key: bytes
    max_rows_per_unit: int
    min_words: int
    max_words: int
    max_characters: int
    languages: Sequence[str] | None
    cohort_of: pl.Expr
    train_fraction: float
    detect_language: bool = False
    redaction: Redaction = NOTHING_REDACTED
    without_user: WithoutUser = WithoutUser.OWN_UNIT

    @property
    def drops_nobodies(self) -> bool:
        """Whether rows that name no user are left out."""
        return self.unit is PrivacyUnit.USER and self.without_user is WithoutUser.DROP

    def steps(self) -> Iterator[Step]:
        """Each treats a unit apart from all others. Further columns of the rows stay with them."""
        lengths = {name: getattr(self, name) for name in ("min_words", "max_words", "max_characters")}
        split = partial(assign_splits, key=self.key, train_fraction=self.train_fraction)
        bound = partial(bound_contributions, max_rows_per_unit=self.max_rows_per_unit)
        yield Step(lambda rows: name_own_units(canonical_user_ids(rows), key=self.key))
        if self.drops_nobodies:
            yield Step(keep_named, "name no user (corpus.without_user)")
        yield Step(normalise_text)
        yield Step(keep_texts, "have no text")
        yield Step(partial(keep_lengths, **lengths), "are too short or too long (corpus.min_words, max_words ...)")
        if self.detect_language:
            yield Step(detect_languages)
        if self.languages is not None:
            keep = partial(keep_languages, languages=self.languages)
            yield Step(keep, "are in no wanted language, or in none (corpus.languages)")
        yield Step(lambda rows: name_units(redact(rows, self.redaction), unit=self.unit, key=self.key))
        yield Step(drop_duplicates_in_units, "repeat a text or an id of their unit")
        yield Step(bound, "are more than a unit may have (corpus.max_rows_per_unit)")
        yield Step(lambda rows: split(rows).with_columns(cohort=self.cohort_of))
        yield Step(keep_placed, "lie in no cohort (corpus.cohorts)")


def prepare(rows: pl.LazyFrame, **settings: Any) -> pl.LazyFrame:
    """Rows with the columns of `REAL_INSTRUCTIONS`, sorted by unit and instruction.

    Args:
      rows: the columns of `SOURCE_ROWS`.
      settings: those of `Preparation`.

    Raises:
      SchemaError: a column is missing or has another type.
      SourceError: a language is to be detected or something to be redacted, and the library for it is not installed.
    """
    check_schema(rows, SOURCE_ROWS, name="source rows")
    prepared = rows.select(SOURCE_ROWS.names())
    for step in Preparation(**settings).steps():
        prepared = step.run(prepared)
    return prepared.select(REAL_INSTRUCTIONS.names()).sort("unit_id", "instruction_id")


def drop_erased(rows: pl.LazyFrame, *, erased: Collection[str], key: bytes) -> pl.LazyFrame:
    """Rows of the units that were not erased. `erased` holds keyed hashes of unit ids, as the ledger keeps them.

    A unit goes or stays by its own id alone, so it may be dropped before or after any step of `prepare`.
    """

    def is_erased(unit_ids: pl.Series) -> pl.Series:
        return pl.Series([keyed_hash(key, "erased", unit_id) in erased for unit_id in unit_ids], dtype=pl.Boolean)

    return rows.filter(~pl.col("unit_id").map_batches(is_erased, return_dtype=pl.Boolean(), is_elementwise=True))


def normalise_text(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Unicode NFC, `\\n` line ends, plain spaces, no control characters, no white space around lines' ends or the text.

    Tabs, indentation and single blank lines stay, because they carry meaning in code and lists. A null text stays null.
    """
    text = (
        pl.col("text")
        .str.normalize("NFC")
        .str.replace_all(r"\r\n?|[\u{85}\u{2028}\u{2029}]", "\n")
        .str.replace_all(r"\p{Zs}", " ")
        .str.replace_all(r"[\p{Cc}\u{FEFF}--[\n\t]]", "")
        .str.replace_all(r"[ \t]+\n", "\n")
        .str.replace_all(r"\n{3,}", "\n\n")
        .str.strip_chars()
    )
    return rows.with_columns(text)


def keep_named(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that name a user. Every id must be in its one spelling, in which a blank one is null."""
    return rows.drop_nulls("user_id")


def keep_texts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with a text that is not blank."""
    return rows.filter(pl.col("text").str.contains(r"\S"))


def keep_placed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows in a cohort of the fixed list."""
    return rows.drop_nulls("cohort")


def keep_lengths(rows: pl.LazyFrame, *, min_words: int, max_words: int, max_characters: int) -> pl.LazyFrame:
    """Rows with a text whose words (parted by white space) and characters lie within the bounds."""
    words, characters = pl.col("text").str.count_matches(r"\S+"), pl.col("text").str.len_chars()
    return rows.filter(words.is_between(max(min_words, 1), max_words), characters <= max_characters)


def keep_languages(rows: pl.LazyFrame, *, languages: Sequence[str] | None) -> pl.LazyFrame:
    """Rows in one of `languages`, however they are spelt; all rows if None. A row without a language is in none."""
    if languages is None:
        return rows
    return rows.filter(language_code(pl.col("language")).is_in([language_of(language) for language in languages]))


def name_own_units(rows: pl.LazyFrame, *, key: bytes) -> pl.LazyFrame:
    """Add `own_unit`, the id under which a row is a unit of its own.

    It follows from `OWN_UNIT_COLUMNS` before any setting of the preparation touches them: a unit's cohort follows from
    its id, so another setting must not move a row to a cohort with another budget, nor bring an erased one back.
    """
    own_unit = keyed_hash_of(OWN_UNIT_COLUMNS, key=key, purpose="own unit")
    return rows.with_columns(own_unit=pl.lit("instruction:") + own_unit)


def name_units(rows: pl.LazyFrame, *, unit: PrivacyUnit, key: bytes) -> pl.LazyFrame:
    """Add `row_hash`, a keyed hash of all that a row holds, and `unit_id`; give the row hash as missing instruction id.

    Unit ids are `user:` or `instruction:` and 128 bits of keyed hash as hex, so that they say nothing without the key.
    """
    hashed = rows.with_columns(row_hash=keyed_hash_of(SOURCE_ROWS.names(), key=key, purpose="row"))
    user = pl.lit("user:") + keyed_hash_of(["user_id"], key=key, purpose="user")
    names_user = pl.col("user_id").is_not_null() if unit == PrivacyUnit.USER else pl.lit(False)
    return hashed.with_columns(
        unit_id=pl.when(names_user).then(user).otherwise("own_unit"),
        instruction_id=pl.coalesce("instruction_id", "row_hash"),
    )


def named_as_units(rows: pl.LazyFrame, *, unit: PrivacyUnit, key: bytes) -> pl.LazyFrame:
    """Source rows as they are, with the `unit_id` that `prepare` gives them.

    Raises:
      SchemaError: a column is missing or has another type.
    """
    check_schema(rows, SOURCE_ROWS, name="source rows")
    names = SOURCE_ROWS.names()
    spelt = canonical_user_ids(rows.select(*names, as_written=pl.struct(names)))
    named = name_units(name_own_units(spelt, key=key), unit=unit, key=key)
    return named.select("unit_id", "as_written").unnest("as_written")


def unit_of_user(user_id: str, *, key: bytes) -> str:
    """The unit id of the rows that name this user, in whichever spelling."""
    named = pl.LazyFrame([(None, user_id, None, None, None)], schema=SOURCE_ROWS, orient="row")
    rows = name_own_units(canonical_user_ids(named), key=key)
    (unit_id,) = name_units(rows, unit=PrivacyUnit.USER, key=key).collect()["unit_id"]
    return str(unit_id)


def drop_duplicates_in_units(rows: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each text (case and white space aside) of a unit, then one for each instruction id of a unit.

    The row with the least hash stays, so that the order of the source decides nothing.
    """
    folded = pl.col("text").str.to_lowercase().str.replace_all(r"\s+", " ")
    distinct = rows.unique(["unit_id", "row_hash"], keep="any")
    by_text = distinct.filter(_is_least_hash_over("unit_id", folded))
    return by_text.filter(_is_least_hash_over("unit_id", "instruction_id"))


def bound_contributions(rows: pl.LazyFrame, *, max_rows_per_unit: int) -> pl.LazyFrame:
    """At most `max_rows_per_unit` rows of each unit, those with the least hashes."""
    return rows.filter(pl.col("row_hash").rank("ordinal").over("unit_id") <= max_rows_per_unit)


def assign_splits(rows: pl.LazyFrame, *, key: bytes, train_fraction: float) -> pl.LazyFrame:
    """Add `split`: `train` for units whose hash, as a fraction, lies under `train_fraction`, else `test`."""
    threshold = int(train_fraction * 2**HASHED_BITS)
    digits = keyed_hash_of(["unit_id"], key=key, purpose="split").str.head(HASHED_BITS // 4)
    in_train = digits.str.to_integer(base=16, dtype=pl.Int64) < threshold
    return rows.with_columns(split=pl.when(in_train).then(pl.lit(TRAIN_SPLIT)).otherwise(pl.lit(TEST_SPLIT)))


def _is_least_hash_over(*groups: str | pl.Expr) -> pl.Expr:
    return pl.col("row_hash") == pl.col("row_hash").min().over(*groups)
