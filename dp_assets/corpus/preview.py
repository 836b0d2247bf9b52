"""A private preview of a corpus for its owner before anything is spent: what was read, and what each step drops.

The steps are those of `prepare` itself. They run one after the other, bucket by bucket as in a run, so memory does not
grow with the number of rows. Everything here is private (counts, examples, rows) and for the owner only:

    files         rows of each, and whether any names a user    steps         rows that reach each one and that it drops
    columns       missing values of each mapped one             cohorts       rows and units of each, to train on or not
    units         how many, how many rows a unit has            first_rows    as they were read

Erased units are counted by the step that drops them, and in no later figure.

Left out: what the steps of a hub preset drop, because the reader applies them before a row arrives here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.corpus.buckets import NUM_BUCKETS, contents, spread
from dp_assets.corpus.columns import FOLDER, LINE, SPELLING, understood
from dp_assets.corpus.fingerprint import ROWS_IN_A_BATCH
from dp_assets.corpus.prepare import Preparation, Step, named_as_units
from dp_assets.corpus.schemas import SOURCE_ROWS, UNREAD, UNREAD_VALUE
from dp_assets.corpus.text_files import header_of, is_csv
from dp_assets.corpus.users import canonical_user_ids, names_nobody
from dp_assets.privacy.units import PrivacyUnit

FIRST_ROWS, BUSIEST = 5, 3
SIZES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 100), (101, 1000))
WORDS_FOR_NOBODY = frozenset(
    ("nan", "none", "null", "\\n", "n/a", "na", "nil", "undefined", "unknown", "anonymous", "guest", "-", "-1")
)
"""Ids that often mean a missing one, in lower case. They stay ids, and the owner is warned."""
NOT_UNDERSTOOD = {
    LINE: "are lines that no row can be read from",
    "text": "hold a text of a form that is not read",
    "created_at": "hold a time of a form that is not read",
    "user_id": "hold a user id as a float that is too large to name one user",
    "instruction_id": "hold an instruction id as a float that is too large to name one",
    SPELLING: "hold a mapped column under another spelling of its name only",
    FOLDER: "hold another value than the name of their folder",
}
HIDDEN_BY = {"text": (LINE, "text"), "created_at": (LINE, "text", "created_at")}
"""For each column, the values of `UNREAD` with which a null in it may hide a value that was not understood."""
FEWEST_LINES = 4
"""A text in a CSV file needs this many lines to hold two whole rows between its first and last line."""
SHARE_NOT_UNDERSTOOD = 0.01
"""The share of rows from which the owner is warned of a form that is not understood."""
AS_PYTHON_WRITES = r"^\s*(\[\s*)?\{'"
"""How a chat begins that was written as Python prints it, and not as JSON."""
PYTHON = "\ufdd0python"
NUMBER = "\ufdd0number"  # a column of ours among those of the source

Row = dict[str, Any]


@dataclass
class _Counts:
    """Sums over the buckets."""

    users: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    busiest: list[tuple[int, str]] = field(default_factory=list)
    nobodies: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Row] = field(default_factory=dict)
    rows_of: Counter[tuple[str, str]] = field(default_factory=Counter)  # by cohort and split
    units_of: Counter[tuple[str, str]] = field(default_factory=Counter)


def preview(
    parts: Mapping[str, pl.LazyFrame],
    preparation: Preparation,
    *,
    columns: Mapping[str, str],
    cohorts: Sequence[str],
    folder: Path,
    first: Sequence[Step] = (),
) -> Row:
    """Return the whole preview as one JSON value. It spends nothing and is not stored.

    Args:
      parts: the source's rows, by the file or source they come from, with the columns of `SCANNED_ROWS`.
      preparation: the preparation of the run.
      columns: our names of the mapped columns, with the source's names.
      cohorts: the planned cohorts.
      folder: an empty folder of the private zone.
      first: further steps before those of the preparation, on rows with their `unit_id`.
    """
    files = [_file(name, part, columns) for name, part in parts.items()]
    num_rows = sum(file["rows"] for file in files)
    rows, counts = pl.concat(parts.values()), _Counts()
    not_understood = list(_count_unread(rows, counts))
    if broken := counts.examples.get(NOT_UNDERSTOOD[LINE]):
        broken["row"] = _first_broken(parts)
    named = named_as_units(understood(rows), unit=preparation.unit, key=preparation.key)
    spread(named, folder / "buckets", min(NUM_BUCKETS, 1 + num_rows // ROWS_IN_A_BATCH))
    steps = list(preparation.steps())
    for bucket in contents(folder / "buckets"):
        if len(bucket):
            of_units = named_as_units(bucket.lazy(), unit=preparation.unit, key=preparation.key).collect()
            remaining = _through(of_units, first, counts)
            _count_units(remaining, preparation, counts)
            _count_prepared(_through(remaining, steps, counts), counts)
    content = {
        "files": files,
        "rows": num_rows,
        "columns": {ours: {"from": theirs, "missing": _missing(files, ours)} for ours, theirs in columns.items()},
        "units": _units(counts),
        "steps": [_step(drops, counts) for drops in (*not_understood, *_drops([*first, *steps]))],
        "cohorts": [_cohort(cohort, counts) for cohort in cohorts],
        "first_rows": [_plain(row) for row in rows.head(FIRST_ROWS).collect().to_dicts()],
    }
    return {**content, "warnings": list(_warnings(content, preparation, counts))}


def _file(name: str, rows: pl.LazyFrame, columns: Mapping[str, str]) -> Row:
    """Count a part's rows: all, those that lack a mapped column, and those with a Python-style chat or rows inside."""
    missing = {ours: _is_missing(ours).sum().alias(ours) for ours in columns}
    numbers = {NUMBER: pl.len(), PYTHON: pl.col("text").str.contains(AS_PYTHON_WRITES).sum()}
    totals = canonical_user_ids(rows).select(**numbers, **missing).collect(engine="streaming").row(0, named=True)
    return {
        "name": _shown_name(name),
        "rows": totals.pop(NUMBER),
        "names_nobody": names_nobody(understood(rows)),
        "as_python_writes": totals.pop(PYTHON),
        "with_rows_inside": _with_rows_inside(Path(name), rows),
        "missing": totals,
    }


def _with_rows_inside(file: Path, rows: pl.LazyFrame) -> int:
    """Count the rows of a CSV file in which every inner line of the text has as many commas as a row.

    Such a text may hold further rows because a quote was not closed.
    """
    if not (is_csv(file) and file.is_file()) or not (commas := len(header_of(file)) - 1):
        return 0
    long = rows.filter(pl.col("text").str.count_matches("\n", literal=True) >= FEWEST_LINES - 1)
    in_each = pl.col("text").str.split("\n").list.eval(pl.element().str.count_matches(",", literal=True))
    inside = in_each.list.slice(1, in_each.list.len() - 2)
    alike = (inside.list.min() == commas) & (inside.list.max() == commas)
    return int(long.select(alike.sum()).collect(engine="streaming").item())


def _is_missing(column: str) -> pl.Expr:
    """Return whether a row lacks a value. A blank text counts as missing; what is not understood does not.

    Blank ids and languages are null already.
    """
    is_null = pl.col(column).is_null()
    is_none = is_null | ~pl.col(column).str.contains(r"\S") if column == "text" else is_null
    return is_none & ~pl.col(UNREAD).is_in(HIDDEN_BY.get(column, (LINE,))).fill_null(False)


def _missing(files: Sequence[Row], column: str) -> int:
    return sum(file["missing"][column] for file in files)


def _count_unread(rows: pl.LazyFrame, counts: _Counts) -> Iterator[str]:
    """Count the rows dropped because a value is present and not understood, and yield each reason that occurs."""
    reached = rows.select(pl.len()).collect(engine="streaming").item()
    for part, drops in NOT_UNDERSTOOD.items():
        gone = rows.filter(pl.col(UNREAD) == part)
        counts.reached[drops], counts.dropped[drops] = reached, gone.select(pl.len()).collect(engine="streaming").item()
        reached -= counts.dropped[drops]
        if counts.dropped[drops]:
            counts.examples[drops] = _plain(gone.head(1).collect().row(0, named=True))
            yield drops


def _first_broken(parts: Mapping[str, pl.LazyFrame]) -> str:
    """Return the number of the first row that cannot be read, with its file. The first row after a header is row 1."""
    for name, rows in parts.items():
        broken = rows.with_row_index(NUMBER, offset=1).filter(pl.col(UNREAD) == LINE).select(NUMBER).head(1).collect()
        if len(broken):
            return f"{broken.item()} of {_shown_name(name)}"
    return ""


def _shown_name(name: str) -> str:
    return name.encode(errors="replace").decode()


def _count_units(named: pl.DataFrame, preparation: Preparation, counts: _Counts) -> None:
    """Count the units before any step of the preparation. Users are shown as the source spells them."""
    canonical = canonical_user_ids(named.lazy().with_columns(written="user_id"))
    units = canonical.group_by("unit_id").agg(pl.len(), pl.col("user_id").first(), pl.col("written").min()).collect()
    users = units.filter(pl.col("unit_id").str.starts_with("user:"))
    counts.users += len(users)
    counts.sizes.update((users if preparation.drops_nobodies else units)["len"].to_list())
    theirs = zip(users["len"], users["written"], strict=True)
    counts.busiest = sorted([*counts.busiest, *theirs], reverse=True)[:BUSIEST]
    for size, user_id in zip(users["len"], users["user_id"], strict=True):
        if user_id.lower() in WORDS_FOR_NOBODY:
            counts.nobodies[user_id] += size


def _through(named: pl.DataFrame, steps: Sequence[Step], counts: _Counts) -> pl.DataFrame:
    """Return the rows that the steps leave. Count the rows that each step drops, and keep the first as an example."""
    numbered = named.with_row_index(NUMBER)
    rows = numbered
    for step in steps:
        after = step.run(rows.lazy()).collect()
        if step.drops is not None:
            counts.reached[step.drops] += len(rows)
            counts.dropped[step.drops] += len(rows) - len(after)
            if step.drops not in counts.examples and len(after) < len(rows):
                gone = rows.join(after, on=NUMBER, how="anti")[NUMBER].min()
                example = numbered.filter(pl.col(NUMBER) == gone).select(SOURCE_ROWS.names())
                counts.examples[step.drops] = _plain(example.row(0, named=True))
        rows = after
    return rows.drop(NUMBER)


def _count_prepared(rows: pl.DataFrame, counts: _Counts) -> None:
    groups = rows.group_by("cohort", "split").agg(pl.len(), pl.col("unit_id").n_unique().alias("units"))
    for cohort, split, num_rows, num_units in groups.iter_rows():
        counts.rows_of[cohort, split] += num_rows
        counts.units_of[cohort, split] += num_units


def _units(counts: _Counts) -> Row:
    sizes, largest = counts.sizes, max(counts.sizes, default=0)
    bins = [*SIZES, (SIZES[-1][1] + 1, max(largest, SIZES[-1][1] + 1))]
    units_by_size = {
        f"{least}" if least == most else f"{least} to {most}": _between(sizes, least, most) for least, most in bins
    }
    return {
        "users": counts.users,
        "rows_as_units": sizes.total() - counts.users,
        "rows_of_a_unit": {name: number for name, number in units_by_size.items() if number},
        "busiest_users": [{"user_id": user_id, "rows": size} for size, user_id in counts.busiest],
    }


def _between(sizes: Counter[int], least: int, most: int) -> int:
    return sum(number for size, number in sizes.items() if least <= size <= most)


def _drops(steps: Sequence[Step]) -> Iterator[str]:
    return (step.drops for step in steps if step.drops is not None)


def _step(drops: str, counts: _Counts) -> Row:
    return {
        "rows_that": drops,
        "reached": counts.reached[drops],
        "dropped": counts.dropped[drops],
        "example": counts.examples.get(drops),
    }


def _cohort(cohort: str, counts: _Counts) -> Row:
    groups = [(name, split) for name, split in counts.rows_of if name == cohort]
    return {
        "cohort": cohort,
        "rows": sum(counts.rows_of[group] for group in groups),
        "units": sum(counts.units_of[group] for group in groups),
        "rows_to_train_on": counts.rows_of[cohort, TRAIN_SPLIT],
        "units_to_train_on": counts.units_of[cohort, TRAIN_SPLIT],
    }


def _plain(row: Mapping[str, Any]) -> Row:
    """Return a source row as JSON. What is not understood appears as it is written, with its name beside it."""
    plain = {name: row[name].isoformat() if isinstance(row[name], datetime) else row[name] for name in SOURCE_ROWS}
    part = row.get(UNREAD)
    if part in HIDDEN_BY:
        plain[part] = row[UNREAD_VALUE]
    return plain | {"not_understood": part}


def _warnings(content: Row, preparation: Preparation, counts: _Counts) -> Iterator[str]:
    """Yield warnings about what is probably a mistake, the most important first."""
    if not content["rows"]:
        yield "the source has no rows"
        return
    by_user = preparation.unit is PrivacyUnit.USER
    yield from _about_users(content, counts) if by_user else ()
    for name, column in content["columns"].items():
        if column["missing"] == content["rows"] and not (by_user and name == "user_id"):
            yield f"the column mapped to {name} holds no value in any row"
    for step in content["steps"]:
        yield from _about_a_step(step, content["rows"])
    for file in content["files"]:
        yield from _about_rows_inside(file)
        yield from _about_chats(file)
    for cohort in content["cohorts"]:
        if not cohort["rows_to_train_on"]:
            yield f"the cohort {cohort['cohort']} has no row to train on; its charges will be refused"


def _about_a_step(step: Row, num_rows: int) -> Iterator[str]:
    drops, dropped = step["rows_that"], step["dropped"]
    if step["reached"] and dropped == step["reached"]:
        yield f"a step drops every row that reaches it: those that {drops}"
    elif drops in NOT_UNDERSTOOD.values() and dropped >= SHARE_NOT_UNDERSTOOD * num_rows:
        yield f"{dropped} of {num_rows} rows {drops}; correct them at the source, or they are left out"


def _about_rows_inside(file: Row) -> Iterator[str]:
    if file["with_rows_inside"]:
        yield (
            f"{file['with_rows_inside']} rows of {file['name']} seem to hold further rows inside their text, as where a"
            " quote is not closed; write the file again with the quotes inside cells doubled"
        )


def _about_chats(file: Row) -> Iterator[str]:
    if file["as_python_writes"] and file["as_python_writes"] >= SHARE_NOT_UNDERSTOOD * file["rows"]:
        yield (
            f"{file['as_python_writes']} rows of {file['name']} hold a text that begins as Python writes lists and"
            " objects, which is taken as plain text; write chat messages as JSON"
        )


def _about_users(content: Row, counts: _Counts) -> Iterator[str]:
    for file in content["files"]:
        if file["names_nobody"]:
            yield (
                f"no row of {file['name']} that could be read names a user; a run will stop there, before anything is"
                " charged"
            )
    for user_id, rows in sorted(counts.nobodies.items()):
        yield f"{rows} rows name the user {user_id!r} and count as those of one; clear the id if it means nobody"
    if counts.users > 1 and counts.busiest[0][0] == 1:
        yield "no user has a second row; if the column mapped to user_id names rows, a person is protected row by row"
    if counts.users == 1 and content["rows"] > 1:
        yield "all rows that name a user name the same one, so that hardly any will be trained on"
