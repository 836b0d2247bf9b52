"""Whether a preparation treats each privacy unit apart from all others, measured on constant public rows.

`prepare` promises that one unit's rows never decide about another's. `preparation_of` puts that to the test with the
very functions and settings of a run: rows that are equal or nearly equal across units, a unit far beyond the
contribution bound, texts of all lengths, a crowd of units that share a text, rows without a user. It compares what
comes of all of them together, also on the whole way from a file to the table, with what comes of each unit alone, or
of the crowd without the others. The rows are made to fit the settings (length, language, time), because rows that are
dropped would show nothing.

`require_bounded` counts the rows of each unit in the table of real rows that is to be stored.

`require_alone` does the same for vectors: each must depend on its own text, to the last bit.

Left out: a preparation that behaves otherwise on rows unlike these, or with more units than the crowd has. The tests
look for that with random corpora.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.testing import assert_frame_equal

from dp_assets.corpus.language_names import language_of
from dp_assets.corpus.prepare import OWN_UNIT_COLUMNS
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.units import PrivacyUnit

CROWD, CROWD_SIZE = "crowd", 300
MOST_WORDS = 120
WORDS_OF_A_PROBE = 12  # longer than the runs of ten words by which near duplicates are often found
ACROSS_UNITS = "across units"

Prepare = Callable[[pl.LazyFrame], pl.LazyFrame]


class UnstablePreparation(PublicError, RuntimeError):
    """The preparation lets one unit change what becomes of another."""


class BoundExceeded(RuntimeError):
    """A unit has more rows than it may have. Whether that is so depends on the rows."""


def require_stable(
    prepare_rows: Prepare,
    prepare_whole: Prepare,
    *,
    unit: PrivacyUnit,
    max_rows_per_unit: int,
    min_words: int,
    max_words: int,
    max_characters: int,
    languages: Sequence[str] | None,
    cohort: str,
) -> str:
    """The verdict on a preparation with the settings of a run, such as "user-wise". `cohort` is one of the cohorts.

    `prepare_rows` is the preparation itself, `prepare_whole` the way on which a run takes rows through it.

    Raises:
      UnstablePreparation: units were not treated apart, or no probe row fits the settings. Depends on settings only.
    """
    most_words = max(min_words, min(max_words, (max_characters + 1) // 2))  # words of one letter
    rows = probe_rows(
        num_words=max(min_words, min(most_words, WORDS_OF_A_PROBE)),
        lengths=(max(min_words, 1), max(min_words, min(most_words, MOST_WORDS))),
        num_rows_of_busiest=max_rows_per_unit + 3,
        language=None if languages is None else language_of(languages[0]),  # as readers spell it
        created_at=moment_in(cohort),
    )
    found = preparation_of(prepare_rows, prepare_whole, rows=rows, unit=unit, max_rows_per_unit=max_rows_per_unit)
    if found != unit.preparation:
        raise UnstablePreparation(
            "on constant public rows, the preparation lets one unit change what becomes of another, or drops every row;"
            " correct the modules in dp_assets/corpus, or the bounds of length, the languages and cohorts in corpus"
        )
    return unit.preparation


def require_bounded(rows: pl.LazyFrame, *, max_rows_per_unit: int) -> None:
    """Require that no unit has more than `max_rows_per_unit` of the prepared rows.

    Raises:
      BoundExceeded: one has. It depends on private rows, so it stays in the private zone.
    """
    rows_of_units = rows.group_by("unit_id").len()
    if not rows_of_units.filter(pl.col("len") > max_rows_per_unit).head(1).collect(engine="streaming").is_empty():
        raise BoundExceeded(
            "a unit has more rows than corpus.max_rows_per_unit in the table that was to be stored; correct the modules"
            " in dp_assets/corpus"
        )


def require_alone(encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], *, longest: int) -> None:
    """Refuse an embedder whose vector of a text, float32 of shape (texts, d), depends on the texts beside or before it.

    Texts of several lengths, many of each, are encoded together, in the opposite order, and some of them alone: each
    then has other companions and another place among them. A long one is encoded again after one of `longest` words,
    as many as the model reads tokens: rotary embeddings that are scaled by the longest text so far remember it.

    Raises:
      UnstablePreparation: it does, on constant public texts.
    """
    texts = [" ".join([letter] * num_words) for num_words in (1, 3, 30) for letter in ascii_lowercase]
    together, reverse = encode(texts), encode(texts[::-1])[::-1]
    picked = range(0, len(texts), len(ascii_lowercase) + 3)
    alone = np.concatenate([encode([texts[index]]) for index in picked])
    # Of different words: attention to tokens that are all alike gives the same whatever their positions.
    words = [ascii_lowercase[place % len(ascii_lowercase)] for place in range(longest)]
    long, longer = " ".join(words[: longest * 3 // 4]), " ".join(words)
    before, _, after = encode([long]), encode([longer]), encode([long])
    if not (np.array_equal(together, reverse) and np.array_equal(together[picked], alone)):
        raise UnstablePreparation(
            "an embedding depends on the texts beside it; choose another embedder, or device = 'cpu', so that each is"
            " computed apart"
        )
    if not np.array_equal(before, after):
        raise UnstablePreparation("an embedding depends on the texts before it; choose another embedder")


def preparation_of(*prepares: Prepare, rows: pl.DataFrame, unit: PrivacyUnit, max_rows_per_unit: int) -> str:
    """How `prepares` treat `rows`: `unit.preparation` if each unit apart from the others, else across units.

    Apart means: the first makes of each unit's rows at most `max_rows_per_unit` rows under one unit id, which no other
    unit gets, and each of them makes of all units together what the first makes of them one by one. The crowd is taken
    as a whole: a unit that the crowd decides about shows among the others.
    """
    first, *_ = prepares
    apart = [(first(of_units.lazy()).collect(), num) for of_units, num in _rows_of_each_unit(rows, unit)]
    kept = [(prepared, num_units) for prepared, num_units in apart if len(prepared)]
    of_each = pl.concat([prepared for prepared, _ in apart])
    rows_of_units = of_each["unit_id"].value_counts()["count"]
    named_apart = all(prepared["unit_id"].n_unique() == num_units for prepared, num_units in kept)
    named_once = len(rows_of_units) == sum(num_units for _, num_units in kept)
    bounded = all(num_rows <= max_rows_per_unit for num_rows in rows_of_units)
    if kept and named_apart and named_once and bounded:
        alike = all(_same_rows(prepare(rows.lazy()).collect(), of_each) for prepare in prepares)
        return unit.preparation if alike else ACROSS_UNITS
    return ACROSS_UNITS


def probe_rows(
    *,
    num_words: int,
    num_rows_of_busiest: int,
    language: str | None,
    created_at: datetime,
    lengths: tuple[int, int] | None = None,
) -> pl.DataFrame:
    """Source rows of `num_words` words each: users who wrote the same, nearly the same, much, and no user at all.

    They come a minute after each other. Some rows are as short and as long as `lengths`. Of a crowd each wrote a text
    that others wrote too, and one of some length between.
    """
    shortest, longest = lengths or (num_words, num_words)
    texts = [" ".join(["a"] * (num_words - 1) + [chr(ord("b") + number)]) for number in range(4)]
    many = [" ".join(_letters(number, num_words)) for number in range(num_rows_of_busiest)]
    brief, long = (" ".join(["x"] * length) for length in (shortest, longest))
    between = [" ".join(_letters(number, _between(shortest, longest, number))) for number in range(CROWD_SIZE)]
    written = [
        *(("busy", text) for text in many),
        *(("first", text) for text in (texts[0], texts[0].upper(), texts[1])),
        *(("second", text) for text in (texts[0], texts[2], many[0])),
        ("third", texts[1]),
        (" Fourth ", texts[0]),
        ("4.0", texts[1]),
        ("brief", brief),
        ("long", long),
        *((None, text) for text in (texts[0], texts[0], texts[3], many[-1])),
        *((f"{CROWD} {number}", texts[0]) for number in range(CROWD_SIZE)),
        *((f"{CROWD} {number}", text) for number, text in enumerate(between)),
    ]
    times = [created_at + timedelta(minutes=number) for number in range(len(written))]
    content = [
        (str(number), user, text, language, at)
        for number, ((user, text), at) in enumerate(zip(written, times, strict=True))
    ]
    twins = [(None, None, texts[3], language, created_at)] * 2
    shared_id = [("0", "second", texts[3], language, created_at)]
    nameless = [("a", user, texts[2], None, created_at) for user in ("third", None)]  # in a language to be detected
    return pl.DataFrame([*content, *twins, *shared_id, *nameless], schema=SOURCE_ROWS, orient="row")


def _between(shortest: int, longest: int, number: int) -> int:
    """A length for each number, most of them short."""
    return shortest + (longest - shortest) // (1 + number % CROWD_SIZE)


def moment_in(cohort: str) -> datetime:
    """A time in the cohort, if its name is a year, a quarter or a month; any other cohort takes every time."""
    found = re.fullmatch(r"(\d{4})(?:-Q([1-4])|-(\d{2}))?", cohort)
    if found is None:
        return datetime(2026, 1, 1, tzinfo=UTC)
    year, quarter, month = (int(part) if part else None for part in found.groups())
    return datetime(year or 1, month or 3 * (quarter or 1) - 2, 1, tzinfo=UTC)


def _letters(number: int, num_words: int) -> list[str]:
    """`number` as words of one letter, the last ones first to change."""
    digits = []
    for _ in range(num_words):
        number, digit = divmod(number, 24)
        digits.append(chr(ord("a") + digit))
    return digits[::-1]


def _rows_of_each_unit(rows: pl.DataFrame, unit: PrivacyUnit) -> list[tuple[pl.DataFrame, int]]:
    """One frame a unit: a user's rows where they name one, else all rows that agree in what tells them apart.

    With each its number of units. The rows of the crowd, which has many, are one frame.
    """
    names_user = pl.col("user_id").is_not_null() & (unit is PrivacyUnit.USER)
    whole_row = pl.struct(OWN_UNIT_COLUMNS).rank("dense").cast(pl.String)
    owner = pl.when(names_user).then("user " + pl.col("user_id")).otherwise("row " + whole_row)
    is_crowd = pl.col("user_id").str.starts_with(CROWD).fill_null(False)
    owned = rows.with_columns(owner=owner, part=pl.when(is_crowd).then(pl.lit(CROWD)).otherwise(owner))
    parts = owned.partition_by("part")
    return [(part.drop("owner", "part"), part["owner"].n_unique()) for part in parts]


def _same_rows(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    try:
        assert_frame_equal(first, second, check_row_order=False)
    except AssertionError:
        return False
    return True
