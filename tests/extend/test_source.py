"""The example of a source: the graph makes its private table of it, and what is not understood is marked."""

import mailbox
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dp_assets.assets.real_instructions import real_instructions
from dp_assets.corpus.columns import SourceError, understood
from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.pipeline import corpus
from examples.extend.source import MailboxSource
from tests.tiny_pipeline import register, tiny_profile, tiny_resources
from tests.toy_graph import SILENT

WriteMails = Callable[..., Path]


def mail(text: str | None, sender: str | None, *, html: bool = False) -> EmailMessage:
    message = EmailMessage()
    if sender is not None:
        message["From"] = sender
    message["Date"] = "Tue, 01 Dec 2026 10:00:00 +0000"
    if text is not None:
        message.set_content(text, subtype="html" if html else "plain")
    return message


@pytest.fixture
def write_mails(tmp_path: Path) -> WriteMails:
    def write(*mails: EmailMessage) -> Path:
        box = mailbox.mbox(tmp_path / "mails.mbox")
        for message in mails:
            box.add(message)
        box.close()
        return tmp_path / "mails.mbox"

    return write


def test_a_mail_becomes_a_row_of_its_sender(write_mails: WriteMails, tmp_path: Path) -> None:
    path = write_mails(mail("how do i bake bread?", "Ann <Ann@example.org>"), mail("what is it?", None))
    rows = MailboxSource(path).scan(tmp_path).collect()
    assert rows.schema == SCANNED_ROWS
    assert rows["text"].str.strip_chars().to_list() == ["how do i bake bread?", "what is it?"]
    assert rows["user_id"].to_list() == ["ann@example.org", None]
    assert rows["created_at"].dt.year().to_list() == [2026, 2026]
    assert rows["unread"].null_count() == 2


def test_a_mail_without_plain_text_is_said_to_be_not_understood(write_mails: WriteMails, tmp_path: Path) -> None:
    path = write_mails(mail("<p>how do i bake bread?</p>", "ann@example.org", html=True), mail("why?", "b@example.org"))
    rows = MailboxSource(path).scan(tmp_path)
    assert rows.collect()["unread"].to_list() == ["line", None]
    assert understood(rows).collect().height == 1


def test_how_a_mail_is_read_does_not_depend_on_the_others(write_mails: WriteMails, tmp_path: Path) -> None:
    mails = [mail(f"how do i bake bread number {number}?", f"user-{number}@example.org") for number in range(6)]
    alone = MailboxSource(write_mails(mails[3])).scan(tmp_path).collect()
    (tmp_path / "mails.mbox").unlink()
    together = MailboxSource(write_mails(*mails)).scan(tmp_path).collect()
    assert together[3].equals(alone)


def test_a_missing_file_is_refused_without_a_look_at_any_mail(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no file; correct the path"):
        MailboxSource(tmp_path / "none.mbox").require_opened()


def test_the_private_table_of_the_graph_is_made_of_it(
    write_mails: WriteMails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = [mail(f"how do i bake bread {number}?", f"user-{number % 5}@example.org") for number in range(20)]
    profile = tiny_profile(write_mails(*mails), tmp_path, max_rows_per_unit=2)
    monkeypatch.setattr(corpus, "_sources_by_kind", lambda settings: MailboxSource(settings.path))
    resources = tiny_resources(profile, tmp_path / "home")
    register(resources["ledger"], profile)
    assert dg.materialize([real_instructions], resources=resources, run_config=SILENT).success
    (stored,) = (tmp_path / "home/private").rglob("real_instructions/**/*.parquet")
    table = pl.read_parquet(stored)
    assert table["unit_id"].n_unique() == 5
    assert table.group_by("unit_id").len()["len"].max() == 2
