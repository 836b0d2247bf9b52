"""Tests, on constant public rows, that a preparation treats each privacy unit independently of all others.

`prepare` guarantees that one unit's rows never affect another's. `verdict_on_preparation` tests this with the functions
and settings of the run itself. Its rows are equal or nearly equal across units, and include a unit far beyond the
contribution bound, texts of all lengths, a crowd of units that share a text, and rows without a user. It prepares all
units together, also along the whole path from a file to the table, and compares the result with each unit prepared
alone and with the crowd prepared without the others. The rows fit the settings (length, language, time), because
dropped rows would test nothing.

`require_bounded` checks the contribution bound in the table of real rows that is about to be stored.

`require_alone` tests an embedder: each vector must depend on its own text only, to the last bit.

Left out: a preparation that behaves differently on other rows, or with more units than the crowd has. The tests search
for such cases with random corpora.
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
from dp_assets.corpus.prepare import OWN_UNIT_COLUMNS, Preparation
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.units import PrivacyUnit

CROWD, CROWD_SIZE = "crowd", 300
MOST_WORDS = 120
WORDS_OF_A_PROBE = 12  # longer than the runs of ten words by which near duplicates are often found
ACROSS_UNITS = "across units"

Prepare = Callable[[pl.LazyFrame], pl.LazyFrame]


class UnstablePreparation(PublicError, RuntimeError):
    """The preparation, or the embedder, lets one unit affect the result of another."""


class BoundExceeded(RuntimeError):
    """A unit has more rows than the contribution bound allows. This depends on private rows."""


def require_stable(
    prepare_rows: Prepare,
    prepare_whole: Prepare,
    preparation: Preparation,
    *,
    cohort: str,
) -> str:
    """Return the verdict on a preparation with the settings of a run, such as "user-wise".

    Args:
      prepare_rows: the preparation itself.
      prepare_whole: the path along which a run takes rows through it.
      preparation: its settings; the probe rows fit them.
      cohort: the name of one of the cohorts; the probe rows lie in it.

    Raises:
      UnstablePreparation: units were not treated independently, or no probe row fits the settings. This depends on
        settings only.
    """
    unit, fewest_words, languages = preparation.unit, preparation.min_words, preparation.languages
    words_of_one_letter = (preparation.max_characters + 1) // 2
    most_words = max(fewest_words, min(preparation.max_words, words_of_one_letter))
    rows = probe_rows(
        num_words=max(fewest_words, min(most_words, WORDS_OF_A_PROBE)),
        lengths=(max(fewest_words, 1), max(fewest_words, min(most_words, MOST_WORDS))),
        num_rows_of_busiest=preparation.max_rows_per_unit + 3,
        language=None if languages is None else language_of(languages[0]),  # as readers spell it
        created_at=moment_in(cohort),
    )
    bound = preparation.max_rows_per_unit
    verdict = verdict_on_preparation(prepare_rows, prepare_whole, rows=rows, unit=unit, max_rows_per_unit=bound)
    if verdict != unit.preparation:
        raise UnstablePreparation(
            "on constant public rows, the preparation lets one unit affect another, or drops every row;"
            " correct the modules in dp_assets/corpus, or the bounds of length, the languages and cohorts in corpus"
        )
    return unit.preparation


def require_bounded(rows: pl.LazyFrame, *, max_rows_per_unit: int) -> None:
    """Require that no unit has more than `max_rows_per_unit` of the prepared rows.

    Raises:
      BoundExceeded: a unit has more. The error depends on private rows, so it stays in the private zone.
    """
    rows_of_units = rows.group_by("unit_id").len()
    if not rows_of_units.filter(pl.col("len") > max_rows_per_unit).head(1).collect(engine="streaming").is_empty():
        raise BoundExceeded(
            "a unit has more rows than corpus.max_rows_per_unit in the table that was to be stored; correct the modules"
            " in dp_assets/corpus"
        )


def require_alone(encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], *, longest: int) -> None:
    """Require that an embedder's vector of a text depends on no other text, in the same batch or before it.

    `encode` returns float32 vectors of shape (texts, d). Two effects are tested on constant public texts:

    - The rest of the batch: texts of several lengths, many of each, are encoded together, in the opposite order, and
      some of them alone. The order changes each text's batch and its position in it.
    - Memory: a long text is encoded before and after one of `longest` words, which is as many as the model reads
      tokens. Rotary embeddings that are scaled by the longest text so far would give another vector.

    Raises:
      UnstablePreparation: a vector depends on another text.
    """
    texts = [" ".join([letter] * num_words) for num_words in (1, 3, 30) for letter in ascii_lowercase]
    together, reverse = encode(texts), encode(texts[::-1])[::-1]
    picked = range(0, len(texts), len(ascii_lowercase) + 3)
    alone = np.concatenate([encode([texts[index]]) for index in picked])
    # Different words, because attention over equal tokens gives the same result at any position.
    words = [ascii_lowercase[index_of_word % len(ascii_lowercase)] for index_of_word in range(longest)]
    long, longer = " ".join(words[: longest * 3 // 4]), " ".join(words)
    before, _, after = encode([long]), encode([longer]), encode([long])
    if not (np.array_equal(together, reverse) and np.array_equal(together[picked], alone)):
        raise UnstablePreparation(
            "an embedding depends on the other texts of its batch; choose another embedder, or device = 'cpu', so that"
            " each is computed separately"
        )
    if not np.array_equal(before, after):
        raise UnstablePreparation("an embedding depends on texts embedded before it; choose another embedder")


def verdict_on_preparation(*prepares: Prepare, rows: pl.DataFrame, unit: PrivacyUnit, max_rows_per_unit: int) -> str:
    """Return how `prepares` treat `rows`: `unit.preparation` if each unit independently, else `ACROSS_UNITS`.

    Independently means:

    - The first function turns each unit's rows into at most `max_rows_per_unit` rows under one unit id of its own.
    - Every function turns all units together into the rows that the first one gives for the units one by one.
    - At least one row is left.

    The crowd is prepared as a whole. If the crowd affected another unit, that unit's rows would differ.
    """
    first, *_ = prepares
    apart = [(first(of_units.lazy()).collect(), num) for of_units, num in _rows_of_each_unit(rows, unit)]
    nonempty = [(prepared, num_units) for prepared, num_units in apart if len(prepared)]
    of_each = pl.concat([prepared for prepared, _ in apart])
    rows_of_units = of_each["unit_id"].value_counts()["count"]
    named_apart = all(prepared["unit_id"].n_unique() == num_units for prepared, num_units in nonempty)
    named_once = len(rows_of_units) == sum(num_units for _, num_units in nonempty)
    bounded = all(num_rows <= max_rows_per_unit for num_rows in rows_of_units)
    if nonempty and named_apart and named_once and bounded:
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
    """Return source rows: equal and nearly equal texts across users, a user with many rows, and rows without a user.

    The rows are a minute apart. Each user of a crowd has a text that others have too, and one of a length within
    `lengths`.

    Args:
      num_words: the length of all other texts, in words.
      num_rows_of_busiest: the rows of the user with the most.
      language: the language of all rows but two, which name none.
      created_at: the time of the first row.
      lengths: the shortest and longest texts, in words; `num_words` if None.
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
    """Return a length for each number, most of them short."""
    return shortest + (longest - shortest) // (1 + number % CROWD_SIZE)


def moment_in(cohort: str) -> datetime:
    """Return a time within a cohort that is a year, quarter or month; for other cohorts any time will do."""
    match = re.fullmatch(r"(\d{4})(?:-Q([1-4])|-(\d{2}))?", cohort)
    if match is None:
        return datetime(2026, 1, 1, tzinfo=UTC)
    year, quarter, month = (int(part) if part else None for part in match.groups())
    return datetime(year or 1, month or 3 * (quarter or 1) - 2, 1, tzinfo=UTC)


def _letters(number: int, num_words: int) -> list[str]:
    """Return `number` as words of one letter; the last word changes fastest."""
    digits = []
    for _ in range(num_words):
        number, digit = divmod(number, 24)
        digits.append(chr(ord("a") + digit))
    return digits[::-1]


def _rows_of_each_unit(rows: pl.DataFrame, unit: PrivacyUnit) -> list[tuple[pl.DataFrame, int]]:
    """Return the rows of each unit, with the number of units in the frame.

    A unit is a user where rows name one, else all rows that agree in `OWN_UNIT_COLUMNS`. The crowd is one frame with
    many units; every other frame has one.
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
