"""Prepares source rows as `real_instructions`: cleaned, with privacy units, contribution bounds, cohorts and splits.

Guarantee: every step maps one unit's rows to rows without reading another unit's. Adding or removing a unit adds or
removes at most `max_rows_per_unit` rows of that unit and changes nothing else, for any order of the source. So the
privacy of a mechanism over the prepared rows is also a statement about the source.

A unit is a user where the row names one (see `users.py` for the form of ids). A row without a user is a unit of its
own, unless such rows are dropped. Its id is a hash of the row as the source has it, before any setting applies. So two
rows without a user that agree in all of these columns are one unit: to tell them apart would need their position, which
depends on other rows.

Left out:

- Duplicates across units. The paper's released code drops a text that shares a 10-gram with an earlier one, so one
  added row can remove many others.
- Quality and safety filters.
- Truncation: a text that is too long is dropped.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

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
"""The columns that identify a row that is a unit of its own, as the source has them. They are registered."""


@dataclass(frozen=True)
class Step:
    """One step of the preparation. `drops` describes the rows that it drops, None if it drops none."""

    run: Callable[[pl.LazyFrame], pl.LazyFrame]
    drops: str | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The steps from source rows to prepared ones, and their public settings.

    unit             with `instruction`, every row is a unit of its own, whoever wrote it
    without_user     what happens to rows that name no user where users are the units
    key              the private zone's key, 1 to 64 bytes; determines ids, which rows are kept, and the split
    max_rows_per_unit    the contribution bound
    min_words, max_words, max_characters    bounds of the normalized text, inclusive
    languages        keep these only, and drop rows without a language; None keeps all rows
    cohort_of        the cohort from `unit_id` and `created_at` (see `cohort_expr`); null drops the row
    train_fraction   the expected fraction of units in the split `train`
    detect_language  fill in the language of rows that name none
    redaction        what is replaced by placeholders. The steps after it behave as if the source held the redacted
                     texts, except for the ids of units. The bounds of length apply before it
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
        """Whether rows that name no user are dropped."""
        return self.unit is PrivacyUnit.USER and self.without_user is WithoutUser.DROP

    def steps(self) -> Iterator[Step]:
        """Yield the steps, each of which treats a unit independently of all others. Further columns are kept."""
        fitting = partial(
            keep_lengths, min_words=self.min_words, max_words=self.max_words, max_characters=self.max_characters
        )
        split = partial(assign_splits, key=self.key, train_fraction=self.train_fraction)
        bound = partial(bound_contributions, max_rows_per_unit=self.max_rows_per_unit)
        yield Step(lambda rows: name_own_units(canonical_user_ids(rows), key=self.key))
        if self.drops_nobodies:
            yield Step(keep_named, "name no user (corpus.without_user)")
        yield Step(normalize_text)
        yield Step(keep_texts, "have no text")
        yield Step(fitting, "are too short or too long (corpus.min_words, max_words ...)")
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


def prepare(rows: pl.LazyFrame, preparation: Preparation) -> pl.LazyFrame:
    """Return prepared rows with the columns of `REAL_INSTRUCTIONS`, sorted by unit and instruction.

    Args:
      rows: source rows with the columns of `SOURCE_ROWS`.
      preparation: the steps, in order.

    Raises:
      SchemaError: a column is missing or has another type.
      SourceError: the library for language detection or redaction is needed and not installed.
    """
    check_schema(rows, SOURCE_ROWS, name="source rows")
    prepared = rows.select(SOURCE_ROWS.names())
    for step in preparation.steps():
        prepared = step.run(prepared)
    return prepared.select(REAL_INSTRUCTIONS.names()).sort("unit_id", "instruction_id")


def drop_erased(rows: pl.LazyFrame, *, erased: Collection[str], key: bytes) -> pl.LazyFrame:
    """Return the rows of units that were not erased. `erased` holds keyed hashes of unit ids, as stored in the ledger.

    Whether a unit is dropped depends on its own id alone, so this may run before or after any step of `prepare`.
    """

    def is_erased(unit_ids: pl.Series) -> pl.Series:
        return pl.Series([keyed_hash(key, "erased", unit_id) in erased for unit_id in unit_ids], dtype=pl.Boolean)

    return rows.filter(~pl.col("unit_id").map_batches(is_erased, return_dtype=pl.Boolean(), is_elementwise=True))


def normalize_text(rows: pl.LazyFrame) -> pl.LazyFrame:
    r"""Normalize texts.

    - Unicode NFC, `\n` as line end, plain spaces, no control characters.
    - No white space at the ends of lines or around the text, and no more than one blank line in a row.
    - Tabs, indentation and single blank lines are kept, because they carry meaning in code and lists.
    - A null text stays null.
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
    """Keep the rows that name a user. Ids must be canonical, so that a blank one is null."""
    return rows.drop_nulls("user_id")


def keep_texts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the rows with a text that is not blank."""
    return rows.filter(pl.col("text").str.contains(r"\S"))


def keep_placed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the rows in a cohort of the fixed list."""
    return rows.drop_nulls("cohort")


def keep_lengths(rows: pl.LazyFrame, *, min_words: int, max_words: int, max_characters: int) -> pl.LazyFrame:
    """Keep the rows whose numbers of words (separated by white space) and of characters are within the bounds."""
    words, characters = pl.col("text").str.count_matches(r"\S+"), pl.col("text").str.len_chars()
    return rows.filter(words.is_between(max(min_words, 1), max_words), characters <= max_characters)


def keep_languages(rows: pl.LazyFrame, *, languages: Sequence[str] | None) -> pl.LazyFrame:
    """Keep the rows in one of `languages`, in any spelling; all rows if None. A row without a language is in none."""
    if languages is None:
        return rows
    return rows.filter(language_code(pl.col("language")).is_in([language_of(language) for language in languages]))


def name_own_units(rows: pl.LazyFrame, *, key: bytes) -> pl.LazyFrame:
    """Add `own_unit`, the id of a row that is a unit of its own.

    It is a hash of `OWN_UNIT_COLUMNS` before any setting of the preparation applies. A unit's cohort and erasure follow
    from its id, so a changed setting must not move a row to a cohort with another budget, or bring an erased row back.
    """
    own_unit = keyed_hash_of(OWN_UNIT_COLUMNS, key=key, purpose="own unit")
    return rows.with_columns(own_unit=pl.lit("instruction:") + own_unit)


def name_units(rows: pl.LazyFrame, *, unit: PrivacyUnit, key: bytes) -> pl.LazyFrame:
    """Add `row_hash`, a keyed hash of the whole row, and `unit_id`. A missing instruction id becomes the row hash.

    Unit ids are `user:` or `instruction:` and 128 bits of keyed hash as hex, so they reveal nothing without the key.
    """
    hashed = rows.with_columns(row_hash=keyed_hash_of(SOURCE_ROWS.names(), key=key, purpose="row"))
    user = pl.lit("user:") + keyed_hash_of(["user_id"], key=key, purpose="user")
    names_user = pl.col("user_id").is_not_null() if unit == PrivacyUnit.USER else pl.lit(False)
    return hashed.with_columns(
        unit_id=pl.when(names_user).then(user).otherwise("own_unit"),
        instruction_id=pl.coalesce("instruction_id", "row_hash"),
    )


def named_as_units(rows: pl.LazyFrame, *, unit: PrivacyUnit, key: bytes) -> pl.LazyFrame:
    """Return source rows unchanged, with the `unit_id` that `prepare` gives them.

    Raises:
      SchemaError: a column is missing or has another type.
    """
    check_schema(rows, SOURCE_ROWS, name="source rows")
    names = SOURCE_ROWS.names()
    spelled = canonical_user_ids(rows.select(*names, as_written=pl.struct(names)))
    named = name_units(name_own_units(spelled, key=key), unit=unit, key=key)
    return named.select("unit_id", "as_written").unnest("as_written")


def unit_of_user(user_id: str, *, key: bytes) -> str:
    """Return the unit id of the rows that name this user, in any spelling."""
    named = pl.LazyFrame([(None, user_id, None, None, None)], schema=SOURCE_ROWS, orient="row")
    rows = name_own_units(canonical_user_ids(named), key=key)
    (unit_id,) = name_units(rows, unit=PrivacyUnit.USER, key=key).collect()["unit_id"]
    return str(unit_id)


def drop_duplicates_in_units(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep one row for each text of a unit (ignoring case and white space), then one for each instruction id of a unit.

    The row with the smallest hash is kept, so the order of the source has no effect.
    """
    folded = pl.col("text").str.to_lowercase().str.replace_all(r"\s+", " ")
    distinct = rows.unique(["unit_id", "row_hash"], keep="any")
    by_text = distinct.filter(_is_least_hash_over("unit_id", folded))
    return by_text.filter(_is_least_hash_over("unit_id", "instruction_id"))


def bound_contributions(rows: pl.LazyFrame, *, max_rows_per_unit: int) -> pl.LazyFrame:
    """Keep at most `max_rows_per_unit` rows of each unit: those with the smallest hashes."""
    return rows.filter(pl.col("row_hash").rank("ordinal").over("unit_id") <= max_rows_per_unit)


def assign_splits(rows: pl.LazyFrame, *, key: bytes, train_fraction: float) -> pl.LazyFrame:
    """Add `split`: `train` for units whose hash, as a fraction, is below `train_fraction`, else `test`."""
    threshold = int(train_fraction * 2**HASHED_BITS)
    digits = keyed_hash_of(["unit_id"], key=key, purpose="split").str.head(HASHED_BITS // 4)
    in_train = digits.str.to_integer(base=16, dtype=pl.Int64) < threshold
    return rows.with_columns(split=pl.when(in_train).then(pl.lit(TRAIN_SPLIT)).otherwise(pl.lit(TEST_SPLIT)))


def _is_least_hash_over(*groups: str | pl.Expr) -> pl.Expr:
    return pl.col("row_hash") == pl.col("row_hash").min().over(*groups)
