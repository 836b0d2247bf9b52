"""Released folders with a statement, and what `verify` finds of them; folders whose charges a ledger knows."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from typer.testing import CliRunner, Result

from dp_assets.artifacts import Document, PrivateTable, Table
from dp_assets.cli import app
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.statements.statement import restated, sealed
from dp_assets.statements.statement_pages import to_html, to_markdown
from resources.ledger.ledger_resource import Ledger
from resources.storage.artifact_files import write_artifact
from resources.storage.digests import code_digest, file_digests
from tests.privacy.plans import small_plan, small_terms
from tests.statements.statements import PLAN, both, state_of, statement_of

PLACE = "all/eps-8"
ARTIFACTS = (f"dp_generator/{PLACE}", f"dp_histogram/{PLACE}")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def stored(folder: Path, artifact: Table | Document | PrivateTable) -> Path:
    folder.mkdir(parents=True)
    write_artifact(folder, artifact)
    return folder


def write_statement(folder: Path, statement: dict[str, Any]) -> Path:
    ids = tuple(statement["ledger"]["charge_ids"])
    stored(folder, Document(statement, to_markdown(statement), ids, to_html(statement)))
    return folder / "document.json"


def released_zone(folder: Path) -> Path:
    """The folder `artifacts` of a released zone: two artifacts and the statement made from them."""
    root = folder / "released/artifacts"
    for number, place in enumerate(ARTIFACTS):
        stored(root / place, Table(pl.LazyFrame({"number": [number]}), (GENERATOR, HISTOGRAM)[: number + 1]))
    files = {name: value for place in ARTIFACTS for name, value in file_digests(root / place, below=root).items()}
    statement = restated(statement_of(state_of(*both())), files=files, code=code_digest())
    write_statement(root / "privacy_statement" / PLACE, statement)
    return root


def document_of(released: Path) -> Path:
    return released / "privacy_statement" / PLACE / "document.json"


def findings(document: Path, *arguments: str) -> dict[str, str]:
    """What `verify --json` found, by check."""
    answer = json.loads(invoke("verify", str(document), "--json", *arguments).stdout)
    return {one["check"]: one["outcome"] for one in answer["findings"]}


def edit(document: Path, change: Callable[[dict[str, Any]], None], *, reseal: bool = False) -> None:
    content = json.loads(document.read_text())
    change(content["data"])
    content["data"] = sealed(content["data"]) if reseal else content["data"]
    document.write_text(json.dumps(content))


class Shelf:
    """A ledger in which both mechanisms of a plan were charged, and released folders that descend from them."""

    def __init__(self, home: Path) -> None:
        self.home, self.folders = home, home / "copied elsewhere"
        self.ledger = Ledger(private_root=str(home / Zone.PRIVATE))
        terms = replace(small_terms(), is_public=True)
        self.corpus_id = self.ledger.register(locator="file", terms=terms, plans=[PLAN]).corpus_id
        self.ids = {mechanism: self.charge(mechanism) for mechanism in (GENERATOR, HISTOGRAM)}

    def charge(self, mechanism: str, level: str = "eps-8") -> str:
        plan = PLAN if level == PLAN.level else small_plan(level)
        names = {"corpus_id": self.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": mechanism + level}
        return self.ledger.charge(plan=plan, mechanism=mechanism, **names).charge_id

    def table(self, name: str, *ids: str) -> str:
        return str(stored(self.folders / name, Table(pl.LazyFrame({"number": [1]}), ids)))
