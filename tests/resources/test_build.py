"""The resources of a code location lie in its data folder, and no launch can point them elsewhere."""

import os
from pathlib import Path

import dagster as dg
import pytest

from resources.build import build_resources, fixed
from resources.private.private_step import SPILL_FOLDER, temporary_folder
from tests.tiny_pipeline import tiny_profile


def test_the_code_location_chooses_where_rows_are_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPILL_FOLDER, raising=False)
    build_resources(tiny_profile(tmp_path / "corpus.parquet", tmp_path / "model"), tmp_path)
    assert os.environ[SPILL_FOLDER] == str(temporary_folder(tmp_path / "private"))


def test_every_resource_that_stores_something_lies_in_the_data_folder(tmp_path: Path) -> None:
    resources = build_resources(tiny_profile(tmp_path / "corpus.parquet", tmp_path / "model"), tmp_path)
    assert resources["ledger"].private_root == str(tmp_path / "private")
    assert {resources[name].home for name in ("io_manager", "releases", "shard_store")} == {str(tmp_path)}
    assert Path(resources["language_model"].cache_root).is_relative_to(tmp_path)


def test_a_fixed_resource_takes_no_configuration_and_is_handed_out_as_it_is() -> None:
    given = {"ledger": object(), "io_manager": dg.mem_io_manager(None)}
    made = fixed(given)
    assert isinstance(made["io_manager"], dg.IOManagerDefinition)
    with dg.build_resources(made) as resources:
        assert (resources.ledger, resources.io_manager) == (given["ledger"], given["io_manager"])
    with (
        pytest.raises(dg.DagsterInvalidConfigError),
        dg.build_resources(made, resource_config={"ledger": {"config": {"private_root": "/elsewhere"}}}),
    ):
        pass
