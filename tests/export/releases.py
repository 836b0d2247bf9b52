"""Releases without a run: a few rows of every part, and the statement of the two charges behind them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.export.cards import CardSettings
from dp_assets.export.parts import STATEMENT, Kind, chosen_parts
from dp_assets.export.release import Release, gather
from dp_assets.privacy.labels import Label, zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.statements.statement import restated
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import verify
from resources.storage.artifact_files import DOCUMENT, Artifact, write_artifact
from resources.storage.stores import artifact_folder
from resources.storage.zones import atomic_folder
from tests.statements.statements import both, state_of, statement_of
from tests.tiny_pipeline import PARTITION

IDS = ("dp_generator", "dp_histogram")
ADAPTERS = ("generator", "sft", "reward", "rlhf")
MODEL_FOLDER = "/srv/models/tiny"
SETTINGS = CardSettings(license_id="cc-by-4.0", languages=("en",), renamed=False, packaged_base=False)


def put(home: Path, asset: str, artifact: Artifact) -> Path:
    """Store a released artifact where the IO manager would."""
    folder = artifact_folder(home, [asset], Label.RELEASED, PARTITION)
    with atomic_folder(folder, zone(Label.RELEASED, "eps-8")) as temporary:
        write_artifact(temporary, artifact)
    return folder


def release_everything(home: Path, *, base_model: str = "a-model") -> LedgerState:
    """A data folder in which every part is released, and its ledger."""
    for part in chosen_parts([]):
        put(home, part.asset, _artifact(part.asset, part.kind, base_model))
    state = state_of(*both())
    put_statement(home, restated(statement_of(state), base_model=base_model))
    return state


def verified(folder: Path) -> Mapping[str, Any]:
    """The statement in a folder, built anew."""
    return verify(json.loads((folder / DOCUMENT).read_text())["data"])


def statement_in(folder: Path) -> dict[str, Any]:
    """The statement in an export, as it stands there."""
    data: dict[str, Any] = json.loads((folder / "privacy_statement/document.json").read_text())["data"]
    return data


def put_statement(home: Path, statement: dict[str, Any]) -> Path:
    return put(home, STATEMENT, Document(statement, to_markdown(statement), IDS, to_html(statement)))


def gathered(home: Path, state: LedgerState, *only: str, **changed: Any) -> Release:
    """What an export of these parts is made of, by default under a statement that verifies."""
    settings: dict[str, Any] = {"stale": (), "as_stored": False, "verified": verified}
    return gather(home, state, PARTITION, chosen_parts(only), **settings | changed)


def _artifact(asset: str, kind: Kind, base_model: str) -> Artifact:
    if kind is Kind.DOCUMENT:
        return Document({"before": {"rows": 3}}, "## Quality\n", IDS)
    if kind is Kind.MODEL:
        config = {"base_model_name_or_path": base_model, "peft_type": "LORA"}
        return Adapter({"w": np.ones((2, 3), np.float32)}, config, base_model, IDS, {"curve": []})
    rows = pl.LazyFrame({"synthetic_id": ["b", "a", "c"], "text": [asset] * 3, "annotator": [base_model] * 3})
    return Table(rows, IDS[:1] if asset == "synthetic_pool" else IDS)
