"""What the presets make of the real schemas of public data sets, and which rows their steps leave out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import polars as pl
import pytest

from dp_assets.corpus.presets import PRESETS, Turn
from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.corpus.settings import PresetName
from tests.corpus.chat_data import SCHEMAS, Rows, moderated, talk, wanted_and_unwanted, write_data_set
from tests.corpus.hub_reading import STRICT, read

pytestmark = pytest.mark.usefixtures("own_caches")

LAX = {"languages": [], "drop_redacted": False, "drop_flagged": "never"}
QUARTER_PAST = datetime(2023, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


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


def test_the_presets_that_a_profile_may_name_are_those_that_exist_and_have_a_schema() -> None:
    assert set(get_args(PresetName)) == set(PRESETS) == set(SCHEMAS)
