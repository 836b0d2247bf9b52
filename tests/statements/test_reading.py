"""Bytes of which readers may see different values are refused."""

import re

import pytest

from dp_assets.statements.reading import StatementError, strict_json
from tests.statements.edits import spelled
from tests.statements.forgeries import Statement, document, refusal, refusal_of
from tests.statements.statements import (
    planned,
)


def test_a_name_that_occurs_twice_is_refused_wherever_it_stands() -> None:
    lines = spelled(document(planned())).splitlines(keepends=True)
    for number, line in enumerate(lines):
        if re.fullmatch(rb'\s*"[^"]*": [^\[{].*\s*', line):
            again = line.rstrip().rstrip(b",") + b",\n"
            assert "occurs twice" in refusal(b"".join([*lines[:number], again, *lines[number:]]))


def test_a_number_too_large_to_compute_with_is_refused() -> None:
    def change(statement: Statement) -> None:
        for plan in (statement["plans"]["eps-8"]["dpsgd"], statement["configuration"]["profile"]["generator"]):
            plan["expected_batch_size"] = 10**400

    assert "too large" in refusal_of(change)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"data": {}, "charge_ids": []}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{\x00}\x00",
    ],
    ids=range(8),
)
def test_what_is_no_statement_is_refused(content: bytes) -> None:
    assert refusal(content)


def test_a_name_that_occurs_twice_among_very_many_is_found_at_once() -> None:
    names = [*range(100_000), 99_999]
    content = "{" + ",".join(f'"k{name}":0' for name in names) + "}"
    with pytest.raises(StatementError, match="'k99999' occurs twice"):
        strict_json(content.encode())


@pytest.mark.parametrize("appended", [b"{}", b"\x00", b"x"])
def test_text_beside_the_value_is_refused(appended: bytes) -> None:
    content = spelled(document(planned()))
    assert refusal(content + appended)
    assert refusal(b"\xef\xbb\xbf" + content)


@pytest.mark.parametrize(
    "number", ["NaN", "-Infinity", "1e999", "1e-5x", "0x8", '"8.0"', "true", "null", "-0.0", "1" * 5000]
)
def test_a_budget_that_is_no_number_is_refused(number: str) -> None:
    text = spelled(document(planned())).decode()
    assert text.count('"epsilon": 8.0') == 1
    assert refusal(text.replace('"epsilon": 8.0', f'"epsilon": {number}').encode())
