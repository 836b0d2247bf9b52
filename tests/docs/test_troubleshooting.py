"""The page of messages holds every message of the source and no other."""

from dp_assets.cli._console import EXPECTED
from tests.docs.messages import PAGE, messages, page


def test_the_page_is_the_one_that_the_source_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.docs.messages"


def test_every_error_that_a_command_shows_is_on_the_page() -> None:
    """So the scan of the source is blind to none of them."""
    ours = {error.__name__ for error in EXPECTED if error.__module__.startswith(("dp_assets", "resources"))}
    assert ours - {message.error for message in messages()} == set()


def test_no_message_stands_on_the_page_twice() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row not in ("| what you see | what to do |", "| --- | --- |")]
    assert len(rows) == len(set(rows)) > 200
