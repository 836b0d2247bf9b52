"""Answers of an endpoint on disk, one JSON line each, written as they arrive.

- A line is on disk before its answer counts as received. So a run that is stopped or killed, or that loses power, keeps
  all answers it received, and the next run requests only the rest.
- The file is append-only. A line that a crash left half written is skipped, and its answer is requested again.
- One process at a time holds the file.
- Every response is kept, even a useless one: it was paid for, and the number of tries of a question must outlive the
  run.
- The file holds released text only, so it may lie in the released zone.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from dp_assets.privacy.errors import PublicError


class Outcome(StrEnum):
    """The outcome of a request that the endpoint answered."""

    ANSWERED = "answered"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    MALFORMED = "malformed"
    UNREADABLE = "unreadable"
    REFUSED = "refused"
    REJECTED = "rejected"
    PROBE = "probe"


FINAL = (Outcome.ANSWERED, Outcome.REFUSED, Outcome.REJECTED)
"""Outcomes that asking again would not change. The others are worth another try."""


@dataclass(frozen=True)
class Usage:
    """Tokens of requests: those that the model read (input) and those that it wrote (output)."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True)
class Answer:
    """One response. `key` identifies question and model; `text` is empty unless the outcome is ANSWERED."""

    key: str
    outcome: Outcome
    text: str
    usage: Usage


class AnswersBusy(PublicError, RuntimeError):
    """Another process is writing to the same answers."""


class AnswersStore:
    """The answers in one file, opened by `opened`. Calls of `add` must not overlap between threads."""

    def __init__(self, stream: IO[str], answers: Iterator[Answer]) -> None:
        self._stream = stream
        self._texts: dict[str, str] = {}
        self._last: dict[str, Outcome] = {}
        self._tries: Counter[str] = Counter()
        self.usage, self.new_usage, self.num_answers = Usage(), Usage(), 0
        for answer in answers:
            self._keep(answer)

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["AnswersStore"]:
        """Open the answers in `path`, which is created if missing and locked until the block ends.

        Raises:
          AnswersBusy: another process holds the file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnswersBusy(f"another run is writing to {path}; wait for it, or end it, then run again") from None
            stream.seek(0)
            content = stream.read()
            if content and not content.endswith("\n"):
                stream.write("\n")
            yield cls(stream, _answers_in(content))

    def add(self, answer: Answer) -> None:
        """Write an answer to disk, then count it.

        Raises:
          OSError: it could not be written; the file keeps its earlier content.
        """
        self._stream.write(json.dumps(asdict(answer)) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._keep(answer)
        self.new_usage += answer.usage

    def tries(self, key: str) -> int:
        """Return the number of responses to this question."""
        return self._tries[key]

    def last_outcome(self, key: str) -> Outcome | None:
        """Return the outcome of the newest response to this question, or None if there is no response."""
        return self._last.get(key)

    def text(self, key: str) -> str:
        """Return the answer to this question, or an empty text if no response was usable."""
        return self._texts.get(key, "")

    def _keep(self, answer: Answer) -> None:
        self._tries[answer.key] += 1
        self._last[answer.key] = answer.outcome
        if answer.outcome is Outcome.ANSWERED:
            self._texts[answer.key] = answer.text
        self.usage += answer.usage
        self.num_answers += 1


def _answers_in(content: str) -> Iterator[Answer]:
    for line in content.split("\n"):
        answer = _parsed(line)
        if answer is not None:
            yield answer


def _parsed(line: str) -> Answer | None:
    """Return the answer in a line, or None if the line is not complete."""
    try:
        fields = json.loads(line)
        return Answer(fields["key"], Outcome(fields["outcome"]), fields["text"], Usage(**fields["usage"]))
    except (ValueError, KeyError, TypeError):
        return None
