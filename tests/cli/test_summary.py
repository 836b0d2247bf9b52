"""The summary of a run: guarantee, sizes, quality and examples, of the partition that it is asked for."""

import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.cli.summary import ADAPTERS, LONGEST_EXAMPLE, TABLES, print_summary
from tests.export.releases import IDS, put
from tests.statements.statements import both, state_of
from tests.tiny_pipeline import PARTITION, tiny_profile

TEXTS = ["why is the sky blue?", "what is [bold]bread[/]?", "x" * (LONGEST_EXAMPLE + 50), "how do I bake?"]
FIGURES = ("total_variation", "jensen_shannon", "frontier_score")
SUBJECTS = {"before": 0.4, "after": 0.2, "baseline": 0.6}


@pytest.fixture
def shown(tmp_path: Path) -> str:
    """What is printed of a release whose artifacts were put there by hand."""
    for asset in TABLES:
        columns = ("instruction", "response") if asset == "annotated_instructions" else ("text",)
        put(tmp_path, asset, Table(pl.LazyFrame(dict.fromkeys(columns, TEXTS)), IDS))
    for asset in ADAPTERS:
        weights, record = {"w": np.ones((20, 100), np.float32)}, {"signal_to_noise": 0.25}
        put(tmp_path, asset, Adapter(weights, {"peft_type": "LORA"}, "a-model", IDS, record))
    quality = {
        subject: {f"estimated_{name}{end}": value for name in FIGURES for end in ("", "_low", "_high")}
        for subject, value in SUBJECTS.items()
    }
    put(tmp_path, "quality_report", Document({**quality, "shortage": 7}, "", IDS))
    state, profile = state_of(*both()), tiny_profile(tmp_path / "corpus.parquet", Path("no model"))
    (registration,) = state.registrations.values()
    text = io.StringIO()
    print_summary(Console(file=text, width=100), tmp_path, profile, registration, state, PARTITION)
    return text.getvalue()


def test_it_tells_the_guarantee_and_the_size_of_every_artifact(shown: str) -> None:
    assert f"Guarantee of {PARTITION}" in shown
    assert "signal to noise of a private training step: at most 0.25" in shown
    sizes = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in shown.splitlines() if "│" in line}
    assert {name: sizes[name] for name in TABLES} == dict.fromkeys(TABLES, "4 rows")
    assert {name: sizes[name] for name in ADAPTERS} == dict.fromkeys(ADAPTERS, "2,000 parameters")


def test_it_tells_each_set_beside_the_others_and_what_is_short(shown: str) -> None:
    (row,) = [line for line in shown.splitlines() if "total variation" in line]
    assert re.findall(r"(0\.\d{3}) \(", row) == ["0.400", "0.200", "0.600"]
    assert "no sample could be found for: 7" in " ".join(shown.split())


def test_examples_are_cut_to_a_line_and_brackets_in_them_are_no_markup(shown: str) -> None:
    assert "what is [bold]bread[/]?" in shown
    letters = "".join(shown.split())
    assert "x" * LONGEST_EXAMPLE + "..." in letters
    assert "x" * (LONGEST_EXAMPLE + 1) not in letters
