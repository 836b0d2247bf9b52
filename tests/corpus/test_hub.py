"""Data sets in the layout of the hub: where caches lie, what a refusal says, and which corpus they are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.hub import CACHES, QUIET, HubSource, reader_environment
from dp_assets.corpus.settings import PresetSteps
from tests.corpus.chat_data import wanted_and_unwanted, write_data_set

pytestmark = pytest.mark.usefixtures("own_caches")


def hub_source(**changed: Any) -> HubSource:
    nothing: dict[str, Any] = {
        "dataset": None,
        "path": None,
        "subset": None,
        "split": "train",
        "revision": None,
        "preset": None,
    }
    nothing |= {"own_columns": {}, "steps": PresetSteps(languages=(), drop_redacted=False, drop_flagged="never")}
    return HubSource(**(nothing | changed))


def test_the_reader_leaves_every_cache_in_the_private_scratch_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    preset = "lmsys/lmsys-chat-1m"
    kept, dropped = wanted_and_unwanted(preset)
    data, scratch, home = (
        write_data_set(tmp_path / "data set", preset, [*kept, *dropped]),
        tmp_path / "in",
        tmp_path / "home",
    )
    home.mkdir()
    scratch.mkdir()
    for variable in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(home))
    for variable in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_XET_CACHE"):
        monkeypatch.setenv(variable, str(home / variable))
    rows = hub_source(path=data, preset=preset, steps=PresetSteps()).scan(scratch).collect()
    assert rows["text"].to_list() == ["Keep 0?", "Keep 1?"]
    assert list(home.rglob("*")) == []
    assert any((scratch / "hub").rglob("*"))
    assert capfd.readouterr() == ("", "")


def test_the_libraries_take_their_caches_and_silence_from_the_readers_environment(tmp_path: Path) -> None:
    code = """
import json, datasets, huggingface_hub.constants as hub
places = [hub.HF_HOME, hub.HF_HUB_CACHE, hub.HF_ASSETS_CACHE, hub.HF_XET_CACHE, datasets.config.HF_DATASETS_CACHE,
          datasets.config.HF_MODULES_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH]
quiet = [hub.HF_HUB_DISABLE_TELEMETRY, hub.HF_HUB_DISABLE_PROGRESS_BARS, hub.HF_HUB_DISABLE_UPDATE_CHECK,
         not datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, not datasets.is_progress_bar_enabled()]
print(json.dumps([list(map(str, places)), quiet, hub.HF_TOKEN_PATH]))
"""
    environment = reader_environment(tmp_path)
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    places, quiet, token = json.loads(shown.stdout)
    assert all(Path(place).is_relative_to(tmp_path) for place in places)
    assert all(quiet)
    assert not Path(token).is_relative_to(tmp_path)
    assert {*CACHES, *QUIET} <= set(environment)


def test_a_token_is_found_where_the_user_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HF_HOME", "/home/me/hf")
    assert reader_environment(tmp_path)["HF_TOKEN_PATH"] == os.path.join("/home/me/hf", "token")


def parquet(folder: Path, **columns: Any) -> Path:
    pl.DataFrame({"prompt": ["a secret"]} | columns).write_parquet(folder / "train.parquet")
    return folder


def test_the_reader_passes_refusals_on_and_hides_what_broke_while_reading(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no split 'dev'"):
        hub_source(path=parquet(tmp_path), own_columns={"text": "prompt"}, split="dev").scan(made(tmp_path / "a"))
    data = made(tmp_path / "data")
    parquet(data).joinpath("train.parquet").rename(data / "train-00000-of-00002.parquet")
    (data / "train-00001-of-00002.parquet").write_bytes(b"what cannot be read")
    with pytest.raises(RuntimeError) as broken:
        hub_source(path=data, own_columns={"text": "prompt"}).scan(made(tmp_path / "b"))
    assert str(broken.value) == "the data set could not be read to its end"


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_missing_folder_an_unknown_preset_and_a_mapping_without_text_are_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        hub_source(path=tmp_path / "absent", own_columns={"text": "t"}).scan(made(tmp_path / "scratch"))
    with pytest.raises(SourceError, match=r"source\.preset must be one of lmsys/lmsys-chat-1m"):
        hub_source(dataset="a/b", preset="a/b")
    with pytest.raises(SourceError, match="must map `text`"):
        hub_source(dataset="a/b")


def test_splits_and_revisions_of_a_data_set_are_one_corpus(tmp_path: Path) -> None:
    sources = [
        {"dataset": "Some/Set"},
        {"dataset": "some/set", "split": "test"},
        {"dataset": "Some/set", "revision": "v2"},
    ]
    assert {hub_source(**each, own_columns={"text": "t"}).locator for each in sources} == {"huggingface:some/set"}
    local = hub_source(path=tmp_path, own_columns={"text": "t"})
    assert local.locator == f"file:{tmp_path.resolve()}"
