"""From source file to prepared rows and tokens, nobody else's rows change when a unit joins."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dp_assets.privacy.units import PrivacyUnit
from tests.replay import checks
from tests.replay.neighbors import (
    BROKEN_CSV_ROWS,
    BROKEN_LINES,
    CASES,
    PLACES,
    as_lines,
    joined,
    neighbors,
    others,
    prepared,
    token_rows,
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("unit", "case"), CASES)
def test_a_newcomer_changes_no_row_of_anybody_else(tmp_path: Path, unit: PrivacyUnit, case: str, place: str) -> None:
    checks.others_keep_their_rows(neighbors(tmp_path, unit, case, place=place, train_fraction=0.8))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(("unit", "case"), CASES)
def test_nor_in_any_other_kind_of_file(tmp_path: Path, unit: PrivacyUnit, case: str, suffix: str) -> None:
    checks.others_keep_their_rows(neighbors(tmp_path, unit, case, suffix=suffix))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", BROKEN_LINES, ids=[repr(line[:24]) for line in BROKEN_LINES])
def test_a_line_that_does_not_parse_changes_no_other_row(tmp_path: Path, line: bytes, place: str) -> None:
    (tmp_path / "without.jsonl").write_bytes(b"\n".join(as_lines(others())))
    (tmp_path / "joined.jsonl").write_bytes(b"\n".join(joined(as_lines(others()), [line], place)))
    before, after = (prepared(tmp_path / name, PrivacyUnit.USER) for name in ("without.jsonl", "joined.jsonl"))
    assert after.filter(after["unit_id"].is_in(before["unit_id"].implode())).equals(before)
    assert len(after) - len(before) <= 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", BROKEN_CSV_ROWS)
def test_a_csv_row_that_does_not_parse_changes_no_other_row(tmp_path: Path, line: str, place: str) -> None:
    quoted = (
        "{}",
        '"{}"',
        '"""{}"", they asked"',
        '"{},\nand why?"',
        '"the ""how"" of it: {}\n\n""why?"""',
        '5" or {}',
    )
    others_rows = [
        ",".join([quoted[number % len(quoted)].format(row["prompt"]), row["user"] or '""', row["when"]])
        for number, row in enumerate(dict(row, prompt=row["prompt"].replace(",", ";")) for row in others())
    ]
    for name, rows in (("without.csv", others_rows), ("joined.csv", joined(others_rows, [line], place))):
        (tmp_path / name).write_text("\n".join(["prompt,user,when", *rows]))
    before, after = (prepared(tmp_path / name, PrivacyUnit.USER) for name in ("without.csv", "joined.csv"))
    assert before["unit_id"].n_unique() == 25
    assert after.filter(after["unit_id"].is_in(before["unit_id"].implode())).equals(before)
    assert len(after) - len(before) <= 1


def test_a_byte_order_mark_counts_the_same_in_every_line(tmp_path: Path) -> None:
    marked = [b"\xef\xbb\xbf" + line for line in as_lines(others())]
    (tmp_path / "without.jsonl").write_bytes(b"\n".join(marked))
    (tmp_path / "joined.jsonl").write_bytes(b"\n".join([b"{not json", *marked]))
    assert prepared(tmp_path / "without.jsonl", PrivacyUnit.USER).equals(
        prepared(tmp_path / "joined.jsonl", PrivacyUnit.USER)
    )


def test_a_unit_whose_every_row_is_dropped_leaves_no_trace(tmp_path: Path) -> None:
    pair = neighbors(tmp_path, PrivacyUnit.USER, "nothing but malformed rows")
    assert pair.newcomer is None
    assert pair.joined.equals(pair.without)


@pytest.mark.parametrize(("unit", "case"), CASES)
def test_a_newcomer_changes_no_token_of_anybody_else(
    tmp_path: Path, tiny_model_folder: Path, unit: PrivacyUnit, case: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    pair = neighbors(tmp_path, unit, case)
    before, after = token_rows(pair.without, tokenizer), token_rows(pair.joined, tokenizer)
    after.pop(pair.newcomer or "", None)
    assert list(after.items()) == list(before.items())
