"""A data folder says its version, and one of another version is refused."""

import json
from pathlib import Path

import pytest

from resources.storage.data_folder import VERSION, VERSION_FILE, OtherDataFolder, require_known_version, write_version


def test_a_folder_that_does_not_say_its_version_is_taken_and_says_it_from_then_on(tmp_path: Path) -> None:
    require_known_version(tmp_path / "not there")
    require_known_version(tmp_path)
    write_version(tmp_path)
    assert json.loads((tmp_path / VERSION_FILE).read_text()) == {"version": VERSION}
    require_known_version(tmp_path)


@pytest.mark.parametrize("content", [f'{{"version": {VERSION + 1}}}', '{"version": "1"}', "{}", "[]", "not JSON"])
def test_another_version_or_none_that_can_be_read_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / VERSION_FILE).write_text(content)
    with pytest.raises(OtherDataFolder):
        require_known_version(tmp_path)
    write_version(tmp_path)
    assert (tmp_path / VERSION_FILE).read_text() == content
