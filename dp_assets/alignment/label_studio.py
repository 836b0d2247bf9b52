"""Files of Label Studio: the labeling configurations of two projects, and the export of finished annotations.

    instructions   people write a response to each instruction (a text area)
    pairs          people say which of two answers to a prompt is better, or that neither is (a choice)

Both JSON exports can be read. "JSON" holds tasks with all their annotations. "JSON-MIN" holds one row per annotation
and omits skipped tasks and the ground-truth mark. Of an annotator only the number in Label Studio is read, never name
or address.
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
    """A file is no JSON export of Label Studio. The message names the setting and the remedy."""


@dataclass(frozen=True)
class Labelling:
    """One annotation of a task: the value of its control, empty if it is no text, and its annotator (None: unknown)."""

    value: str
    annotator: int | None
    updated_at: str
    is_ground_truth: bool
    is_skipped: bool
    is_readable: bool = True


@dataclass(frozen=True)
class LabeledTask:
    """A task of an export: its texts by field, and its annotations."""

    data: Mapping[str, str]
    labellings: tuple[Labelling, ...]


def read_export(path: Path, *, control: str, setting: str, if_missing: str) -> list[LabeledTask]:
    """Return the tasks of a JSON or JSON-MIN export, in its order.

    - A task of another form is returned without texts or without annotations. The caller reports it.
    - A text with bytes or escapes that are no character (half of a surrogate pair, bytes that are not UTF-8) is left
      out.

    Args:
      path: the export.
      control: `RESPONSE` or `PREFERENCE`.
      setting: the name of the file in messages.
      if_missing: what to do if the file does not exist, for the message.

    Raises:
      ExportError: there is no such file, or it is no list of tasks.
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
    """Return a task of either export. Only the full export has its texts under `data`."""
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
    """Return whether a text has no half of a surrogate pair, which no table can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _minimal(row: Mapping[str, Any], control: str) -> tuple[Labelling, ...]:
    """Return the annotation of a row of a JSON-MIN export, which exists even if its control is empty."""
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
    """Return the value of a control, however an export nests it. Several texts are joined by line breaks."""
    if isinstance(held, str):
        return held.strip()
    if isinstance(held, dict):
        return _value(held.get("text", held.get("choices")))
    if isinstance(held, list):
        return "\n".join(text for text in map(_value, held) if text)
    return ""


def _number(annotator: Any) -> int | None:
    """Return the number of an annotator, who may be given as a number or as a record with an id."""
    number = annotator.get("id") if isinstance(annotator, dict) else annotator
    return number if type(number) is int else None
