"""A path of this machine is replaced by a name that others know."""

from pathlib import Path

import pytest

from dp_assets.export.names import public_names
from dp_assets.export.parts import ExportRefused
from tests.export.releases import MODEL_FOLDER, gathered, release_everything


@pytest.mark.parametrize("name", [None, "/srv/other", "./other"])
def test_a_base_model_that_is_a_folder_needs_a_name_that_is_none(tmp_path: Path, name: str | None) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data", base_model=MODEL_FOLDER))
    with pytest.raises(ExportRefused, match="--base-model NAME"):
        public_names(release.statement, name)


def test_a_base_model_with_an_id_keeps_it(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"))
    assert public_names(release.statement, None) == {}
    with pytest.raises(ExportRefused, match="this one is a-model"):
        public_names(release.statement, "org/tiny")


def test_other_paths_keep_their_last_part(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"))
    configuration = {"profile": {"embedder": "/srv/embedders/mini", "preferences": {"path": "/home/a/pairs.jsonl"}}}
    names = public_names({**release.statement, "configuration": configuration}, None)
    assert names == {"/srv/embedders/mini": "mini", "/home/a/pairs.jsonl": "pairs.jsonl"}
