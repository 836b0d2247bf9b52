"""A source: mails in an mbox file. The sender is the user, the plain text of a mail is the instruction."""

import email
import mailbox
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import polars as pl

from dp_assets.corpus.columns import BROKEN, SourceError, as_stored, source_rows
from dp_assets.corpus.spool import ROWS_IN_A_BATCH, spool, spooled

HEADERS = {"user_id": "from", "created_at": "date", "instruction_id": "message-id"}
TEXT = "body"


@dataclass(frozen=True)
class MailboxSource:
    """The mails of an mbox file."""

    path: Path

    @property
    def locator(self) -> str:
        """The same file has the same name in the ledger, however its path is written."""
        return f"mailbox:{self.path.resolve()}"

    @property
    def columns(self) -> Mapping[str, str]:
        """Where our columns come from; registration fixes those of user and time."""
        return HEADERS | {"text": TEXT}

    def require_opened(self) -> None:
        """Require a file, and look at no mail.

        Raises:
          SourceError: there is none.
        """
        if not self.path.is_file():
            raise SourceError(f"source.path {self.path} is no file; correct the path")

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """One row a mail. The rows lie in `scratch`, which is private, so that memory holds one batch of them.

        Raises:
          SourceError: there is no such file.
        """
        self.require_opened()
        folder = Path(mkdtemp(dir=scratch, prefix="mails-"))
        spool(self._batches(), folder)
        return spooled(folder)

    def _batches(self) -> Iterator[pl.DataFrame]:
        mails: Iterator[Any] = iter(mailbox.mbox(self.path, factory=_parsed, create=False))
        while batch := list(islice(mails, ROWS_IN_A_BATCH)):
            rows = [_row(mail) for mail in batch]
            columns = [as_stored([row[name] for row in rows], name) for name in self.columns.values()]
            broken = pl.Series(BROKEN, [row[BROKEN] for row in rows])
            yield source_rows(pl.LazyFrame([*columns, broken]), self.columns).collect()


def _parsed(file: Any) -> Any:
    return email.message_from_binary_file(file, policy=default)


def _row(mail: EmailMessage) -> dict[str, Any]:
    """What one mail says, without a look at any other. What is missing is None; what is not understood is broken."""
    sent = mail["date"]
    part = mail.get_body(("plain",))
    try:
        text = None if part is None else part.get_content()
    except (LookupError, ValueError):
        text = None
    return {
        "from": parseaddr(mail["from"])[1].lower() if mail["from"] else None,
        "date": None if sent is None else sent.datetime or str(sent),
        "message-id": mail["message-id"],
        TEXT: text,
        BROKEN: text is None,
    }
