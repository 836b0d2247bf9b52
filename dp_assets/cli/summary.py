"""The summary at the end of a demo run: the guarantee, sizes, quality and a few rows of each stage."""

import math
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.privacy.labels import NO_DP, Zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.registration import Registration
from dp_assets.settings.profile import Profile
from dp_assets.statements.pages import number
from dp_assets.vocabulary import Partition
from resources.storage.artifact_files import HTML_PAGE, read_artifact

EXAMPLES = 4
LONGEST_EXAMPLE = 110
TABLES = ("synthetic_pool", "filtered_instructions", "annotated_instructions", "preference_pairs")
ADAPTERS = ("dp_generator", "sft_model", "reward_model", "rlhf_model")


def print_summary(
    out: Console, home: Path, profile: Profile, registration: Registration, state: LedgerState, partition: str
) -> None:
    """Summarize one partition from its released artifacts and the ledger."""
    artifacts = _Artifacts(home, partition)
    _print_guarantee(out, artifacts, registration, state, partition)
    _print_sizes(out, artifacts)
    _print_quality(out, artifacts.document("quality_report"))
    _print_examples(out, artifacts)
    _print_places(out, home, artifacts)


class _Artifacts:
    """The released artifacts of one partition, by asset."""

    def __init__(self, home: Path, partition: str) -> None:
        self._root, self._partition = home / Zone.RELEASED / "artifacts", Partition.named(partition)

    def folder(self, asset: str) -> Path:
        return self._root / asset / self._partition.path

    def read(self, asset: str) -> Any:
        return read_artifact(self.folder(asset))

    def table(self, asset: str) -> pl.DataFrame:
        table: Table = self.read(asset)
        return table.collect()

    def adapter(self, asset: str) -> Adapter:
        adapter: Adapter = self.read(asset)
        return adapter

    def document(self, asset: str) -> Document:
        document: Document = self.read(asset)
        return document


def _print_guarantee(
    out: Console, artifacts: _Artifacts, registration: Registration, state: LedgerState, partition: str
) -> None:
    made = Partition.named(partition)
    guarantee = state.guarantee(registration.corpus_id, [made.cohort], without_noise=made.level == NO_DP)
    hidden = f"hiding one {registration.unit_in_words}, at most {registration.max_rows_per_unit} rows"
    promise = f"epsilon {number(guarantee.epsilon)} at delta {number(registration.delta)}, {hidden}; it rests on"
    left = number(math.floor(guarantee.left * 1e4) / 1e4)
    ratio = artifacts.adapter("dp_generator").record["signal_to_noise"]
    out.print(f"\n[bold]Guarantee[/] of {partition}", highlight=False)
    out.print(
        f"  {promise if guarantee.holds else 'no guarantee'}: {guarantee.basis}\n"
        f"  spent or booked {number(guarantee.spent)} of {number(guarantee.budget)}, left {left}\n"
        f"  signal to noise of a private training step: at most {ratio:.2f}",
        highlight=False,
    )


def _print_sizes(out: Console, artifacts: _Artifacts) -> None:
    sizes = RichTable("artifact", "size", title="released", title_justify="left")
    for asset in TABLES:
        sizes.add_row(asset, f"{artifacts.table(asset).height} rows")
    for asset in ADAPTERS:
        sizes.add_row(asset, f"{sum(array.size for array in artifacts.adapter(asset).weights.values()):,} parameters")
    out.print(sizes)


def _print_quality(out: Console, report: Document) -> None:
    columns = ("against the real rows, estimated", "pool", "filtered", "epsilon zero")
    figures = RichTable(*columns, title="quality", title_justify="left")
    for name in ("total_variation", "jensen_shannon", "frontier_score"):
        of_subjects = (report.data[subject] for subject in ("before", "after", "baseline"))
        key = f"estimated_{name}"
        figures.add_row(
            name.replace("_", " "),
            *(f"{each[key]:.3f} ({each[f'{key}_low']:.3f}-{each[f'{key}_high']:.3f})" for each in of_subjects),
        )
    out.print(figures)
    out.print(
        "  lower is better for the first two, higher for the last; in brackets what the noise of the votes leaves open."
        f" Rows that no sample could be found for: {report.data['shortage']}",
        highlight=False,
    )


def _print_examples(out: Console, artifacts: _Artifacts) -> None:
    for asset in ("synthetic_pool", "filtered_instructions"):
        _print_texts(out, asset, artifacts.table(asset)["text"].sample(EXAMPLES, seed=0).to_list())
    answers = artifacts.table("annotated_instructions").sample(EXAMPLES, seed=0)
    pairs = answers.select("instruction", "response").iter_rows()
    texts = [f"{_short(instruction)}\n      -> {_short(response)}" for instruction, response in pairs]
    _print_texts(out, "annotated_instructions", texts)


def _print_texts(out: Console, title: str, texts: list[str]) -> None:
    out.print(f"\n[bold]{title}[/]")
    for text in texts:
        out.print(f"  - {text if '->' in text else _short(text)}", highlight=False, markup=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_EXAMPLE else f"{line[:LONGEST_EXAMPLE]}..."


def _print_places(out: Console, home: Path, artifacts: _Artifacts) -> None:
    page = artifacts.folder("release_report") / HTML_PAGE
    out.print(f"\nthe release on one page: {page}", highlight=False, soft_wrap=True)
    out.print(f"released artifacts: {home / Zone.RELEASED / 'artifacts'}", highlight=False, soft_wrap=True)
    out.print('ask them: dp-instructions sql "from metrics"', highlight=False)
    out.print("see them: make ui", highlight=False)
