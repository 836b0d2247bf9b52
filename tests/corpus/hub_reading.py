"""Data sets of a folder, read in this process as the reader's own would; a test needs `own_caches` for it."""

from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.corpus import hub_reader

STRICT = {"languages": ["en"], "drop_redacted": True, "drop_flagged": "any"}


def request(path: Path, **changed: Any) -> dict[str, Any]:
    nothing = {"dataset": None, "subset": None, "revision": None, "preset": None}
    return nothing | {"path": str(path), "split": "train", "own_columns": {}, "steps": STRICT} | changed


def read(path: Path, **changed: Any) -> pl.DataFrame:
    return pl.concat(hub_reader.batches_of(request(path, **changed)))
