"""Data sets in the layout of the hub: what the presets make of real schemas, where caches lie, and how much is held."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from dp_assets.corpus import hub_reader
from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.hub import CACHES, QUIET, HubSource, HubSteps, reader_environment
from dp_assets.corpus.presets import PRESETS, Turn
from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.settings.profile import PresetName
from tests.corpus.chat_data import SCHEMAS, Rows, moderated, talk, wanted_and_unwanted, write_data_set

STRICT = {"languages": ["en"], "drop_redacted": True, "drop_flagged": "any"}
LAX = {"languages": [], "drop_redacted": False, "drop_flagged": "never"}
QUARTER_PAST = datetime(2023, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _caches_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests read in this process, which then needs caches of its own and no network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def request(path: Path, **changed: Any) -> dict[str, Any]:
    nothing = {"dataset": None, "subset": None, "revision": None, "preset": None}
    return nothing | {"path": str(path), "split": "train", "own_columns": {}, "steps": STRICT} | changed


def read(path: Path, **changed: Any) -> pl.DataFrame:
    return pl.concat(hub_reader.batches_of(request(path, **changed)))


def hub_source(**changed: Any) -> HubSource:
    nothing = {"dataset": None, "path": None, "subset": None, "split": "train", "revision": None, "preset": None}
    return HubSource(**(nothing | {"own_columns": {}, "steps": HubSteps((), False, "never")} | changed))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_keeps_first_user_turns_and_drops_what_the_steps_name(tmp_path: Path, preset: str) -> None:
    kept, dropped = wanted_and_unwanted(preset)
    rows = read(write_data_set(tmp_path, preset, [*kept, *dropped]), preset=preset)
    assert rows.schema == SCANNED_ROWS
    assert rows["text"].to_list() == ["Keep 0?", "Keep 1?"]
    assert rows["instruction_id"].to_list() == ["Keep 0", "Keep 1"]
    assert set(rows["language"]) == {"en"}


@pytest.mark.parametrize(
    ("preset", "user", "time"),
    [
        ("lmsys/lmsys-chat-1m", None, None),
        ("lmsys/chatbot_arena_conversations", "arena_user_7", QUARTER_PAST),
        ("OpenAssistant/oasst1", "u-7", QUARTER_PAST),
        ("allenai/WildChat-1M", "0a1b", QUARTER_PAST.replace(microsecond=0)),
    ],
)
def test_a_preset_reads_users_and_times_where_the_data_set_has_them(
    tmp_path: Path, preset: str, user: str | None, time: datetime | None
) -> None:
    kept, _ = wanted_and_unwanted(preset)
    rows = read(write_data_set(tmp_path, preset, kept), preset=preset)
    assert rows["user_id"].to_list() == [user] * 2
    assert rows["created_at"].to_list() == [time] * 2


@pytest.mark.parametrize("preset", PRESETS)
def test_every_step_can_be_switched_off(tmp_path: Path, preset: str) -> None:
    kept, dropped = wanted_and_unwanted(preset)
    rows = read(write_data_set(tmp_path, preset, [*kept, *dropped]), preset=preset, steps=LAX)
    later = {"a later turn?", "an answer?"}  # not the opening of a conversation, whatever the steps
    assert len(rows) == len(kept) + len([row for row in dropped if row.get("text") not in later])


@pytest.mark.parametrize(("turn", "dropped"), [("any", "123"), ("first", "13"), ("last", "23"), ("never", "")])
def test_which_turn_counts_as_flagged_is_a_setting(tmp_path: Path, turn: Turn, dropped: str) -> None:
    flags = {"0": (False, False, False), "1": (True, False, False), "2": (False, False, True), "3": (True, True, True)}
    rows: Rows = [
        {"conversation": talk(name), "openai_moderation": moderated(*flag), "language": "English"}
        for name, flag in flags.items()
    ]
    steps = STRICT | {"drop_flagged": turn}
    folder = write_data_set(tmp_path, "lmsys/lmsys-chat-1m", rows)
    assert set("0123") - set(read(folder, preset="lmsys/lmsys-chat-1m", steps=steps)["text"]) == set(dropped)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_makes_of_a_row_does_not_depend_on_the_others(tmp_path: Path, preset: str) -> None:
    rows = [row for group in wanted_and_unwanted(preset) for row in group]
    together = read(write_data_set(tmp_path / "all", preset, rows), preset=preset)
    alone = [read(write_data_set(tmp_path / str(i), preset, [row]), preset=preset) for i, row in enumerate(rows)]
    assert together.equals(pl.concat(alone))


def test_a_conversation_that_opens_with_a_system_message_gives_the_users_words(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, *talk("Who are you?")]
    pl.DataFrame({"messages": [messages, messages[:1], []]}).write_parquet(tmp_path / "chat.parquet")
    rows = read(tmp_path / "chat.parquet", own_columns={"text": "messages"})
    assert rows["text"].to_list() == ["Who are you?", None, None]


def test_the_presets_that_a_profile_may_name_are_those_that_exist_and_have_a_schema() -> None:
    assert set(get_args(PresetName)) == set(PRESETS) == set(SCHEMAS)


def test_any_other_data_set_is_read_by_a_mapping_from_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir()
    pl.DataFrame({"prompt": ["Why?"], "who": [7.0], "other": [1]}).write_parquet(file)
    for path in (tmp_path, file):
        rows = read(path, own_columns={"text": "prompt", "user_id": "who"})
        assert rows.select("text", "user_id").rows() == [("Why?", "7")]


@pytest.mark.parametrize(
    ("users", "named"),
    [
        ({}, "source.columns names user, which a file of the data set .* lacks"),
        ({"User": [7]}, "source.columns names user, which a file of the data set .* lacks"),
        ({"user": [7.0]}, "column 'user' .* holds floats in one file and others in another"),
    ],
)
def test_a_later_file_without_the_column_of_the_users_is_refused_and_names_nobody_in_silence(
    tmp_path: Path, users: dict[str, list[object]], named: str
) -> None:
    pl.DataFrame({"prompt": ["Why?"], "user": [7]}).write_parquet(tmp_path / "train-00000-of-00002.parquet")
    pl.DataFrame({"prompt": ["How?"]} | users).write_parquet(tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(SourceError, match=named):
        read(tmp_path, own_columns={"text": "prompt", "user_id": "user"})


def test_only_the_first_batch_is_read_when_only_the_first_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_reader, "ROWS_IN_A_BATCH", 10)
    (tmp_path / "data").mkdir()
    pl.DataFrame({"prompt": ["Why?"] * 25}).write_parquet(
        tmp_path / "data/train-00000-of-00002.parquet", row_group_size=5
    )
    (tmp_path / "data/train-00001-of-00002.parquet").write_bytes(b"what would fail to be read")
    batches = hub_reader.batches_of(request(tmp_path, own_columns={"text": "prompt"}))
    assert [len(next(batches)) for _ in range(2)] == [10, 10]
    with pytest.raises(Exception, match=r"(?i)parquet"):
        list(batches)


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
    rows = hub_source(path=data, preset=preset, steps=HubSteps(("en",), True, "any")).scan(scratch).collect()
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


def jsonl(folder: Path) -> Path:
    (folder / "train.jsonl").write_text('{"prompt": "a secret"}\n')
    return folder


def parquet(folder: Path, **columns: Any) -> Path:
    pl.DataFrame({"prompt": ["a secret"]} | columns).write_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("make", "changed", "message"),
    [
        (jsonl, {}, "is stored as json, whose types would be guessed from its rows; .*'refs/convert/parquet'"),
        (parquet, {"own_columns": {"text": "body"}}, "names body, which the data set .* lacks"),
        (parquet, {"split": "test"}, "has no split 'test'; correct source.split"),
        (parquet, {"subset": "nope"}, r"cannot be opened \(ValueError\): check source.dataset"),
        (parquet, {"preset": "OpenAssistant/oasst1"}, "lacks"),
        (lambda folder: parquet(folder, number=[1]), {"own_columns": {"text": "number"}}, "holds Int64"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_said_without_a_word_of_a_row(
    tmp_path: Path, make: Any, changed: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refusal:
        read(make(tmp_path), **({"own_columns": {"text": "prompt"}} | changed))
    assert "secret" not in str(refusal.value)


def test_columns_of_another_type_than_the_presets_are_refused(tmp_path: Path) -> None:
    columns = {name: ["a secret"] for name in PRESETS["lmsys/lmsys-chat-1m"].read}
    with pytest.raises(SourceError, match="do not have the types of preset lmsys/lmsys-chat-1m") as refusal:
        read(parquet(tmp_path, **columns), preset="lmsys/lmsys-chat-1m")
    assert "a secret" not in str(refusal.value)


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
