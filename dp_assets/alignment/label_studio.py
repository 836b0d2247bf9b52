"""Label Studio's files: the tasks and labelling configurations of two projects, and the finished annotations.

    instructions   people write a response to each instruction (a text area)
    pairs          people say which of two answers to a prompt is better, or that neither is (a choice)

Both of its JSON exports are read. "JSON" holds tasks with all their annotations; "JSON-MIN" holds one row an annotation
and leaves out what was skipped and which annotation is a ground truth. Of a person only the number that Label Studio
gave them is read, never name or address.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_assets.privacy.errors import PublicError

RESPONSE, PREFERENCE = "response", "preference"
"""The controls of the two projects, by which results are found in an export."""

FIRST, SECOND, TIE = "Answer 1", "Answer 2", "Tie"

INSTRUCTIONS_CONFIG = """\
<View>
  <Header value="Instruction"/>
  <Text name="instruction" value="$instruction" valueType="text"/>
  <Header value="Your response"/>
  <TextArea name="response" toName="instruction" rows="10" maxSubmissions="1" editable="true" required="true"
            placeholder="Write what a helpful, honest assistant should answer. Skip the task if nobody could."/>
</View>
"""
PAIRS_CONFIG = """\
<View>
  <Header value="Instruction"/>
  <Text name="prompt" value="$prompt" valueType="text"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 24px">
    <View>
      <Header value="Answer 1"/>
      <Text name="answer_1" value="$answer_1" valueType="text"/>
    </View>
    <View>
      <Header value="Answer 2"/>
      <Text name="answer_2" value="$answer_2" valueType="text"/>
    </View>
  </View>
  <Header value="Which answer is better?"/>
  <Choices name="preference" toName="prompt" choice="single-radio" showInline="true" required="true">
    <Choice value="Answer 1"/>
    <Choice value="Answer 2"/>
    <Choice value="Tie"/>
  </Choices>
</View>
"""


class ExportError(PublicError, ValueError):
    """A file is no JSON export of Label Studio; the message names the setting and the remedy."""


@dataclass(frozen=True)
class Labelling:
    """One annotation of a task: what its control holds, empty if no text, and who gave it (None: not said)."""

    value: str
    annotator: int | None
    updated_at: str
    is_ground_truth: bool
    is_skipped: bool
    is_readable: bool = True


@dataclass(frozen=True)
class LabeledTask:
    """A task as it comes back: its texts by field, and its annotations."""

    data: Mapping[str, str]
    labellings: tuple[Labelling, ...]


def read_export(path: Path, *, control: str, setting: str, if_missing: str) -> list[LabeledTask]:
    """The tasks of a JSON or JSON-MIN export, in its order. `control` is `RESPONSE` or `PREFERENCE`.

    A task that is not of this form comes back without texts or without annotations; whoever reads it says so. Bytes and
    escapes that are no character (half of a surrogate pair, bytes that are not UTF-8) cost the text that holds them.

    Raises:
      ExportError: there is no such file, or it is no list of tasks. `setting` names the file in the message, and
        `if_missing` says what to do where there is none.
    """
    try:
        written = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        content = json.loads(written, strict=False)  # control characters in a text are part of it
    except FileNotFoundError:
        raise ExportError(f"{setting} {str(path)!r} is not there; {if_missing}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(
            f"{setting} {str(path)!r} cannot be read ({type(error).__name__}); export the project again as JSON"
        ) from None
    if not isinstance(content, list) or (content and not any(isinstance(task, dict) for task in content)):
        raise ExportError(
            f"{setting} {str(path)!r} is no list of tasks; export the project as JSON or JSON-MIN, no other format"
        )
    return [_task(task, control) for task in content]


def _task(task: Any, control: str) -> LabeledTask:
    """A task of either export: only the full one has its texts under `data`."""
    if not isinstance(task, dict):
        return LabeledTask({}, ())
    data = task.get("data")
    if not isinstance(data, dict):
        return LabeledTask(_texts(task), _minimal(task, control))
    annotations = task.get("annotations")
    listed = annotations if isinstance(annotations, list) else []
    return LabeledTask(_texts(data), tuple(_labelling(each, control) for each in listed if isinstance(each, dict)))


def _texts(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in data.items() if isinstance(value, str) and _is_text(value)}


def _readable(value: str) -> str:
    return value if _is_text(value) else ""


def _is_text(value: str) -> bool:
    """Whether no character of it is half of a surrogate pair, which no table holds."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _minimal(row: Mapping[str, Any], control: str) -> tuple[Labelling, ...]:
    """The annotation of a row of a JSON-MIN export, which is there even if its control holds nothing."""
    if row.get("annotation_id") is None:
        return ()
    value = _value(row.get(control))
    text, number, updated_at = _readable(value), _number(row.get("annotator")), str(row.get("updated_at", ""))
    return (Labelling(text, number, updated_at, False, False, is_readable=text == value),)


def _labelling(annotation: Mapping[str, Any], control: str) -> Labelling:
    results = annotation.get("result")
    named = [
        result.get("value")
        for result in (results if isinstance(results, list) else [])
        if isinstance(result, dict) and result.get("from_name") == control
    ]
    value = _value(named)
    return Labelling(
        value=_readable(value),
        annotator=_number(annotation.get("completed_by")),
        updated_at=str(annotation.get("updated_at", "")),
        is_ground_truth=annotation.get("ground_truth") is True,
        is_skipped=annotation.get("was_cancelled") is True,
        is_readable=_is_text(value),
    )


def _value(held: Any) -> str:
    """What a control holds, in whatever nesting an export writes it; several texts follow each other in lines."""
    if isinstance(held, str):
        return held.strip()
    if isinstance(held, dict):
        return _value(held.get("text", held.get("choices")))
    if isinstance(held, list):
        return "\n".join(text for text in map(_value, held) if text)
    return ""


def _number(annotator: Any) -> int | None:
    """The number of a person, who may be given as a whole record."""
    number = annotator.get("id") if isinstance(annotator, dict) else annotator
    return number if type(number) is int else None
