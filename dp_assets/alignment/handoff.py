"""Hand-off to people: released rows as tasks for Label Studio, and the finished annotations as our tables.

Each task carries its `synthetic_id` and its partition. Finished tasks are compared with the released rows of that
partition, and a task is taken only if its texts are unchanged. What is not taken is counted by reason, with ids:

    malformed        no task of ours: `synthetic_id` or `partition` is missing
    other_partition  a task of another partition
    unknown_id       no row of the table has this id
    text_changed     instruction or answers are not those that were handed out
    unanswered       nobody annotated the task
    skipped          an annotation that its author cancelled
    empty            an annotation without a response or verdict
    unreadable       an annotation with a character that no text can hold
    superseded       an annotation replaced by another one of the same task
    tie              most people who compared two answers found neither better
    disagreement     no verdict has more votes than every other one
    not_in_file      a row of the table without a task in the file

If several people responded to one instruction, the response marked as ground truth is taken, or else the one updated
last. If several people compared one pair, each has one vote, the one updated last. If any vote is marked as ground
truth, only such votes count. The verdict with the most votes is taken. A task that was imported twice counts as one.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dp_assets.alignment.annotation import COLUMNS
from dp_assets.alignment.label_studio import (
    FIRST,
    PREFERENCE,
    RESPONSE,
    SECOND,
    TIE,
    LabeledTask,
    Labelling,
    read_export,
)
from dp_assets.privacy.errors import PublicError

HUMAN = "human"
SHOWN_IDS, LONGEST_ID = 20, 64
PAIRS_SCHEMA = ("synthetic_id", "prompt", "chosen", "rejected", "rejected_by")


class NothingUsable(PublicError, ValueError):
    """No annotation of a file can be used."""


@dataclass(frozen=True)
class Drop:
    """A task or annotation that was not taken: the reason, and its id, empty if it has none."""

    reason: str
    synthetic_id: str


@dataclass(frozen=True)
class Taken:
    """The rows for our table, what was dropped, and the number of annotators whom the file identifies."""

    rows: pl.DataFrame
    dropped: tuple[Drop, ...]
    num_annotators: int

    @property
    def figures(self) -> dict[str, object]:
        """The public figures: the number of annotators, and by reason how many were dropped and their first ids."""
        return {
            "handoff/annotators": self.num_annotators,
            "handoff/dropped": self.counts,
            "handoff/dropped_ids": self.ids,
        }

    @property
    def counts(self) -> dict[str, int]:
        """The number dropped, by reason."""
        return dict(Counter(drop.reason for drop in self.dropped))

    @property
    def ids(self) -> dict[str, list[str]]:
        """The first dropped ids, by reason."""
        ids: dict[str, list[str]] = defaultdict(list)
        for drop in self.dropped:
            if drop.synthetic_id and len(ids[drop.reason]) < SHOWN_IDS:
                ids[drop.reason].append(drop.synthetic_id[:LONGEST_ID])
        return dict(ids)


def instruction_tasks(filtered: pl.DataFrame, *, partition: str) -> list[dict[str, dict[str, str]]]:
    """Return a task for each row of `filtered` (columns `synthetic_id`, `text`)."""
    rows = filtered.select("synthetic_id", "text").iter_rows()
    return [
        {"data": {"synthetic_id": synthetic_id, "partition": partition, "instruction": text}}
        for synthetic_id, text in rows
    ]


def pair_tasks(compared: pl.DataFrame, *, partition: str) -> list[dict[str, dict[str, str]]]:
    """Return a task for each row of `answers_to_compare` whose answers can be compared."""
    rows = compared.filter(pl.col("unfit").is_null()).select("synthetic_id", "prompt", "first", "second").iter_rows()
    return [{"data": _pair_data(partition, *row)} for row in rows]


def _pair_data(partition: str, synthetic_id: str, prompt: str, first: str, second: str) -> dict[str, str]:
    data = {"synthetic_id": synthetic_id, "partition": partition, "prompt": prompt}
    return {**data, "answer_1": first, "answer_2": second, "seal": _seal(synthetic_id, prompt, first, second)}


def _seal(*texts: str) -> str:
    """Return a checksum of texts. It detects accidental changes of answers, which are in no table, but no forgery."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def take_responses(path: Path, filtered: pl.DataFrame, *, partition: str, setting: str) -> Taken:
    """Return the rows of `annotated_instructions` from an export of the project of instructions.

    They have the order of `filtered`, whose columns are `synthetic_id`, `text` and `bin_id`. `setting` names the file
    in messages.

    Raises:
      ExportError: the file cannot be read.
      NothingUsable: no annotation can be taken.
    """
    texts = dict(filtered.select("synthetic_id", "text").iter_rows())
    remedy = _remedy("instructions", partition)
    tasks = read_export(path, control=RESPONSE, setting=setting, if_missing=remedy)
    sound, dropped = _sorted_out(tasks, texts, partition, text="instruction")
    responses, people = [], set()
    for synthetic_id, group in _labellings(sound, "synthetic_id").items():
        usable = list(_usable(synthetic_id[0], group, dropped))
        if usable:
            best = max(usable, key=_rank)
            dropped += [Drop("superseded", synthetic_id[0]) for _ in usable[1:]]
            responses.append((synthetic_id[0], best.value, _name(best.annotator)))
            people.add(best.annotator)
    handed_out = {task.data.get("synthetic_id") for task in tasks}
    dropped += [Drop("not_in_file", synthetic_id) for synthetic_id in texts if synthetic_id not in handed_out]
    answered = pl.DataFrame(
        responses, schema=dict.fromkeys(("synthetic_id", "response", "annotator"), pl.String), orient="row"
    )
    rows = filtered.rename({"text": "instruction"}).join(answered, on="synthetic_id", maintain_order="left")
    return _taken(rows.select(COLUMNS), dropped, people, path, setting)


def take_verdicts(path: Path, annotated: pl.DataFrame, *, partition: str, setting: str) -> Taken:
    """Return the rows of `preference_pairs` from an export of the project of pairs, in the order of the export.

    `annotated` (columns `synthetic_id`, `instruction`) holds the prompts that may occur. `setting` names the file in
    messages.

    Raises:
      ExportError: the file cannot be read.
      NothingUsable: no annotation can be taken.
    """
    texts = dict(annotated.select("synthetic_id", "instruction").iter_rows())
    remedy = _remedy("pairs", partition)
    tasks = read_export(path, control=PREFERENCE, setting=setting, if_missing=remedy)
    sound, dropped = _sorted_out(tasks, texts, partition, text="prompt")
    pairs, people = [], set()
    for (synthetic_id, first, second), group in _labellings(sound, "synthetic_id", "answer_1", "answer_2").items():
        votes = _votes(synthetic_id, list(_usable(synthetic_id, group, dropped, (FIRST, SECOND, TIE))), dropped)
        verdict = _winner(vote.value for vote in votes)
        if verdict in (FIRST, SECOND):
            chosen, rejected = (first, second) if verdict == FIRST else (second, first)
            pairs.append((synthetic_id, texts[synthetic_id], chosen, rejected, HUMAN))
            people |= {vote.annotator for vote in votes}
        elif votes:
            dropped.append(Drop(verdict, synthetic_id))
    rows = pl.DataFrame(pairs, schema=dict.fromkeys(PAIRS_SCHEMA, pl.String), orient="row")
    return _taken(rows, dropped, people, path, setting)


def _sorted_out(
    tasks: Iterable[LabeledTask], texts: Mapping[str, str], partition: str, *, text: str
) -> tuple[list[LabeledTask], list[Drop]]:
    """Return the tasks whose texts are unchanged, and a `Drop` for each of the others."""
    sound, dropped = [], []
    for task in tasks:
        reason = _fault(task, texts, partition, text=text)
        if reason is None:
            sound.append(task)
        else:
            dropped.append(Drop(reason, task.data.get("synthetic_id", "")))
    return sound, dropped


def _fault(task: LabeledTask, texts: Mapping[str, str], partition: str, *, text: str) -> str | None:
    """Return why a task cannot be taken, whatever its annotations, or None if it can."""
    data = task.data
    if not {"synthetic_id", "partition", text} <= data.keys():
        return "malformed"
    if data["partition"] != partition:
        return "other_partition"
    if data["synthetic_id"] not in texts:
        return "unknown_id"
    if data[text] != texts[data["synthetic_id"]] or not _is_sealed(data):
        return "text_changed"
    return None if task.labellings else "unanswered"


def _is_sealed(data: Mapping[str, str]) -> bool:
    """Return whether the answers of a pair are unchanged. A task without answers needs no seal."""
    if "prompt" not in data:
        return True
    answers = [data.get(name, "") for name in ("answer_1", "answer_2")]
    return data.get("seal") == _seal(data["synthetic_id"], data["prompt"], *answers)


def _labellings(tasks: Iterable[LabeledTask], *fields: str) -> dict[tuple[str, ...], list[Labelling]]:
    """Return the annotations of tasks grouped by these fields, the groups in the order of their first task."""
    groups: dict[tuple[str, ...], list[Labelling]] = defaultdict(list)
    for task in tasks:
        groups[tuple(task.data[field] for field in fields)] += task.labellings
    return groups


def _usable(
    synthetic_id: str, labellings: Iterable[Labelling], dropped: list[Drop], verdicts: Sequence[str] = ()
) -> Iterator[Labelling]:
    """Yield the usable annotations: with `verdicts`, those that give one of them. The others are added to `dropped`."""
    for labelling in labellings:
        if labelling.is_skipped:
            dropped.append(Drop("skipped", synthetic_id))
        elif not labelling.is_readable:
            dropped.append(Drop("unreadable", synthetic_id))
        elif not labelling.value or (verdicts and labelling.value not in verdicts):
            dropped.append(Drop("empty", synthetic_id))
        else:
            yield labelling


def _votes(synthetic_id: str, labellings: Sequence[Labelling], dropped: list[Drop]) -> list[Labelling]:
    """Return one vote per person. Annotations by unidentified people count as one vote each."""
    decisive = [labelling for labelling in labellings if labelling.is_ground_truth] or labellings
    votes: dict[object, Labelling] = {}
    for number, labelling in enumerate(sorted(decisive, key=_rank)):
        votes[("unknown", number) if labelling.annotator is None else labelling.annotator] = labelling
    dropped += [Drop("superseded", synthetic_id)] * (len(labellings) - len(votes))
    return list(votes.values())


def _winner(verdicts: Iterable[str]) -> str:
    """Return the verdict with the most votes: `FIRST`, `SECOND` or "tie"; "disagreement" if several have as many."""
    (most, *others) = [*Counter(verdicts).most_common(), ("", 0)]
    if others and others[0][1] == most[1]:
        return "disagreement"
    return "tie" if most[0] == TIE else most[0]


def _remedy(kind: str, partition: str) -> str:
    return (
        f"`dp-instructions handoff export {kind} --partition '{partition}' --to FOLDER` writes the tasks. Have them"
        " answered, save the export of the finished project (JSON) at this path, and run again"
    )


def _rank(labelling: Labelling) -> tuple[bool, str]:
    return labelling.is_ground_truth, labelling.updated_at


def _name(annotator: int | None) -> str:
    return HUMAN if annotator is None else f"{HUMAN}:{annotator}"


def _taken(rows: pl.DataFrame, dropped: list[Drop], people: set[int | None], path: Path, setting: str) -> Taken:
    taken = Taken(rows, tuple(dropped), len(people - {None}))
    if rows.is_empty():
        raise NothingUsable(
            f"{setting} {str(path)!r} holds no annotation that can be used: {taken.counts}; hand out the tasks of this"
            " partition again, or export the finished project again"
        )
    return taken
