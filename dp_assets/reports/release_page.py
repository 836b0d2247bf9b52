"""The report of a release: one self-contained page with its guarantee, pictures, figures and trainings.

It is made from released artifacts and the public figures of the ledger, so it may be shared like the release. It loads
nothing, follows the reader's light or dark setting, prints on white, and every picture has an alternative text. The
page explains; the privacy statement beside it is authoritative and can be verified.

Its data: `pictures` holds the alternative text of each picture by its name, `statement_digest` identifies the
statement.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dp_assets.artifacts import Document
from dp_assets.evaluation.quality import summary
from dp_assets.evaluation.synthetic_map import SyntheticMap
from dp_assets.reports.pictures import (
    Drawing,
    agreement_drawing,
    epsilon_drawing,
    map_drawing,
    tradeoff_drawing,
    training_drawing,
    votes_drawing,
)
from dp_assets.reports.quality_page import PAGE_HEAD, quality_blocks
from dp_assets.statements.history import CohortHistory
from dp_assets.statements.pages import Block, Grid, Heading, Items, Paragraph, html_page, markdown_page
from dp_assets.statements.statement_pages import plain_words


@dataclass(frozen=True)
class Training:
    """One training on synthetic text: its title, its curve, and its figures by name."""

    title: str
    curve: Sequence[Mapping[str, float]]
    figures: Mapping[str, float]


def release_report(
    *,
    cohort: str,
    level: str,
    quality: Mapping[str, Any],
    statement: Mapping[str, Any],
    trainings: Sequence[Training],
    histories: Sequence[CohortHistory],
    charge_ids: tuple[str, ...] = (),
) -> Document:
    """Return the report of one partition.

    Args:
      cohort: the partition's cohort.
      level: the partition's privacy level.
      quality: the data of the quality report.
      statement: the facts and figures of the privacy statement.
      trainings: those on the synthetic set.
      histories: of the cohorts of the corpus, from the ledger.
      charge_ids: the charges that the release descends from.
    """
    title = f"Release report: cohort {cohort}, level {level}"
    drawings = {
        "trade_off": tradeoff_drawing(statement),
        "epsilon": epsilon_drawing(histories, own=cohort, budget=statement["budget"]["epsilon"]),
        "agreement": agreement_drawing(quality),
        "votes": votes_drawing(quality),
        "map": map_drawing(SyntheticMap.from_json(quality["map"])),
    }
    curves = [(training, training_drawing(training.title, training.curve)) for training in trainings]
    blocks: list[Block] = [
        Heading(1, title),
        Paragraph(INTRODUCTION),
        *_guarantee(statement, drawings),
        Heading(2, "The synthetic set"),
        *quality_blocks(quality, drawings),
        *_trainings(curves),
        *_origin(statement, charge_ids),
    ]
    words = {name: drawing.alt for name, drawing in drawings.items()}
    words |= {training.title: drawing.alt for training, drawing in curves if drawing is not None}
    data = {"pictures": words, "statement_digest": statement["digest"]}
    html = html_page(title, blocks, further_head=PAGE_HEAD)
    return Document(data, markdown_page(_in_words(title, statement, quality, words)), charge_ids, html)


INTRODUCTION = (
    "What was released, how well it agrees with the real instructions, and what it may tell about the people behind"
    " them. Everything here is made from released data and the public figures of the ledger, and costs no privacy. The"
    " privacy statement beside this report holds the whole guarantee and can be recomputed from its own events."
)


def _guarantee(statement: Mapping[str, Any], drawings: Mapping[str, Drawing]) -> list[Block]:
    pictures = (drawings["trade_off"].block(), drawings["epsilon"].block())
    return [Heading(2, "The guarantee"), *plain_words(statement), *pictures]


def _trainings(curves: Sequence[tuple[Training, Drawing | None]]) -> Iterator[Block]:
    yield Heading(2, "Training on the synthetic set")
    yield Paragraph(
        "Ordinary training on released text, seen by no real row. A step's figures are those of its own batch."
    )
    for training, drawing in curves:
        if drawing is not None:
            yield drawing.block()
        if training.figures:
            named = tuple((name.replace("_", " "), f"{value:.4g}") for name, value in training.figures.items())
            yield Grid((training.title, "figure"), named)


def _origin(statement: Mapping[str, Any], charge_ids: Sequence[str]) -> Iterator[Block]:
    yield Heading(2, "Where it comes from")
    rows = (
        ("base model", statement["base_model"]),
        ("profile", statement["configuration"]["profile_digest"]),
        ("charges it descends from", ", ".join(charge_ids)),
        ("digest of the privacy statement", statement["digest"]),
    )
    yield Grid(("what", "value"), rows)


def _in_words(
    title: str, statement: Mapping[str, Any], quality: Mapping[str, Any], pictures: Mapping[str, str]
) -> list[Block]:
    """Return the page's content in words, without pictures and example texts."""
    return [
        Heading(1, title),
        Paragraph(INTRODUCTION),
        *plain_words(statement),
        Paragraph(summary(quality)),
        Heading(2, "What the pictures show"),
        Items(tuple(pictures.values())),
    ]
