"""Parts are chosen by name, and what each must descend from is read off the asset graph, not off the artifact."""

import json
from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import Table
from dp_assets.definitions import ALL_ASSETS
from dp_assets.export.parts import NAMES, PARTS, ExportRefused, Kind, Part, chosen_parts
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.export.releases import IDS, gathered, put, release_everything

BELOW_VOTES = [part for part in PARTS if HISTOGRAM in part.mechanisms]


def test_each_part_names_the_mechanisms_that_the_graph_has_above_it() -> None:
    above = {asset.key: {key for keys in asset.asset_deps.values() for key in keys} for asset in ALL_ASSETS}
    by_name = {key.to_user_string(): key for key in above}
    for part in PARTS:
        met, reached = {by_name[part.asset]}, [by_name[part.asset]]
        while reached:
            new = above[reached.pop()] - met
            met |= new
            reached += new
        assert {*part.mechanisms} == {GENERATOR, HISTOGRAM} & {key.to_user_string() for key in met}, part.name


@pytest.mark.parametrize("part", BELOW_VOTES, ids=lambda part: str(part.name))
def test_an_artifact_whose_charges_were_shortened_is_not_exported(tmp_path: Path, part: Part) -> None:
    state = release_everything(tmp_path)
    put(tmp_path, part.asset, Table(pl.LazyFrame({"text": ["x"]}), IDS[:1]))
    with pytest.raises(ExportRefused, match=f"{part.asset} names no charge of dp_histogram"):
        gathered(tmp_path, state, part.name)


def test_a_model_or_a_report_whose_charges_were_shortened_is_not_exported(tmp_path: Path) -> None:
    state = release_everything(tmp_path)
    for part in (part for part in BELOW_VOTES if part.kind is not Kind.TABLE):
        name = "document.json" if part.kind is Kind.DOCUMENT else "provenance.json"
        (file,) = (tmp_path / "released/artifacts" / part.asset).rglob(name)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"charge_ids": list(IDS[:1])}))
        with pytest.raises(ExportRefused, match="names no charge of dp_histogram"):
            gathered(tmp_path, state, part.name)


def test_parts_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    assert [part.name for part in chosen_parts(["sft", "pool"])] == ["pool", "sft"]
    assert {part.name for part in chosen_parts([])} == set(NAMES) - {"embeddings"}
    with pytest.raises(ExportRefused, match="--only tables: unknown; choose from filtered"):
        chosen_parts(["tables", "pool"])
