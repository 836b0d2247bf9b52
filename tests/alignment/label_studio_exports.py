"""What Label Studio 1.23 exports once people have worked on tasks: its fields in its nesting, in both forms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROLS = {"response": ("instruction", "textarea", "text"), "preference": ("prompt", "choices", "choices")}


@dataclass(frozen=True)
class Work:
    """What a person did to a task. `value` None: they submitted nothing in the control."""

    value: str | None
    person: int | None = 1
    at: str = "2026-11-24T10:00:00.000000Z"
    skipped: bool = False
    ground_truth: bool = False


def full(tasks: Sequence[Mapping[str, Any]], work: Mapping[int, Sequence[Work]], control: str) -> list[dict[str, Any]]:
    """The "JSON" export: each task with its annotations."""
    return [
        {
            "id": number + 1,
            "annotations": [_annotation(each, control) for each in work.get(number, ())],
            "drafts": [],
            "predictions": [],
            "data": dict(task["data"]),
            "meta": {},
            "created_at": "2026-11-24T09:00:00.000000Z",
            "total_annotations": len(work.get(number, ())),
        }
        for number, task in enumerate(tasks)
    ]


def _annotation(work: Work, control: str) -> dict[str, Any]:
    target, kind, field = CONTROLS[control]
    result = {"from_name": control, "to_name": target, "type": kind, "value": {field: [work.value]}}
    return {
        "id": 7,
        "completed_by": work.person,
        "result": [] if work.value is None else [result],
        "was_cancelled": work.skipped,
        "ground_truth": work.ground_truth,
        "updated_at": work.at,
        "lead_time": None,
    }


def minimal(
    tasks: Sequence[Mapping[str, Any]], work: Mapping[int, Sequence[Work]], control: str
) -> list[dict[str, Any]]:
    """The "JSON-MIN" export: a row for each annotation that was not skipped, and one for a task without any."""
    rows = []
    for number, task in enumerate(tasks):
        done = work.get(number, ())
        rows += [{**task["data"], "id": number + 1, **_row(each, control)} for each in done if not each.skipped]
        if not done:
            rows.append({**task["data"], "id": number + 1, "annotator": None, "annotation_id": None})
    return rows


def _row(work: Work, control: str) -> dict[str, Any]:
    held = {} if work.value is None else {control: work.value}
    return {**held, "annotator": work.person, "annotation_id": 7, "updated_at": work.at}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
