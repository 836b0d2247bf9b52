"""The catalog after a run, rebuilt for its readers and never a reason to fail, and `sql`, which asks it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli.catalog import in_json, refresh
from resources.storage.catalog import catalog_file
from tests.cli_pipeline import CliPipeline


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_refreshing_makes_the_catalog(pipeline: CliPipeline) -> None:
    refresh()
    assert catalog_file(pipeline.home).is_file()


def test_a_catalog_that_cannot_be_rebuilt_is_told_and_nothing_more(
    pipeline: CliPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    report = pipeline.home / "released/artifacts/quality_report/all/eps-8/document.json"
    report.parent.mkdir(parents=True)
    report.write_text("{")
    refresh()
    assert "the catalog was not rebuilt" in " ".join(capsys.readouterr().err.split())
    assert not Path(catalog_file(pipeline.home)).exists()


def test_sql_prints_columns_and_rows_with_their_types(pipeline: CliPipeline) -> None:
    invoke("register")
    query = "select 1 as one, 'a' as text, null as nothing, [1, 2] as list, date '2026-01-02' as day, 1 as one"
    assert json.loads(invoke("sql", query, "--json").stdout) == {
        "columns": ["one", "text", "nothing", "list", "day", "one"],
        "rows": [[1, "a", None, [1, 2], "2026-01-02", 1]],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_null(value: float) -> None:
    assert in_json({"figures": [value, 0.5]}) == {"figures": [None, 0.5]}
