"""The page of messages holds every message of the source and no other."""

from tests.docs.messages import PAGE, messages, page
from tests.error_classes import below


def test_the_page_is_the_one_that_the_source_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.docs.messages"


def test_every_error_that_a_command_shows_is_on_the_page() -> None:
    """So the scan of the source is blind to none of them."""
    assert below(["PublicError"]) - {message.error for message in messages()} == set()


def test_no_message_stands_on_the_page_twice() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row not in ("| what you see | what to do |", "| --- | --- |")]
    assert len(rows) == len(set(rows)) > 200
