"""What reads the private rows for training shows none of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import torch
from transformers import AutoTokenizer

from dp_assets.artifacts import TRAIN_SPLIT, PrivateTable
from dp_assets.generation.token_rows import PrivateTokenRows, RowEncoder


def test_what_reads_the_rows_shows_none_of_them(tiny_model_folder: Path) -> None:
    row = {"unit_id": ["user:somebody"], "text": ["only here"], "cohort": ["all"], "split": [TRAIN_SPLIT]}
    identity = {"corpus_id": "corpus", "snapshot": "1"}
    charge: Any = SimpleNamespace(**identity, cohort="all", mark_opened=lambda: None)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    table, encoder = PrivateTable(pl.LazyFrame(row), **identity), RowEncoder(tokenizer, (1,), max_tokens=24)
    rows = PrivateTokenRows(table, charge, model=torch.nn.Linear(1, 1), encoder=encoder)
    units = rows.open()
    drawn = units["user:somebody"][0]
    shown = f"{rows} {units['user:somebody']!r}"
    assert shown.startswith("PrivateTokenRows(")
    for secret in ("somebody", "only here", str(drawn.target_ids)):
        assert secret not in shown
