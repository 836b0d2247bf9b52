"""The guide on corpora: its profiles load and describe a source, and it names every kind, preset and redaction."""

import re
from pathlib import Path
from typing import get_args

import pytest

from dp_assets.corpus.presets import PRESETS
from dp_assets.corpus.redaction import KINDS
from dp_assets.corpus.settings import PresetSteps, SourceSettings
from dp_assets.corpus.sources import READERS
from dp_assets.pipeline.corpus import locator_of, source_of, terms_of
from dp_assets.settings.named import load_profile
from dp_assets.settings.profile import Profile

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/own-corpus.md").read_text()
PROFILES = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


def loaded(folder: Path, text: str) -> Profile:
    (folder / "mine.toml").write_text(text)
    return load_profile(str(folder / "mine.toml"))


@pytest.mark.parametrize("text", PROFILES)
def test_every_profile_of_the_guide_loads_and_can_be_registered(tmp_path: Path, text: str) -> None:
    (tmp_path / "chat").mkdir()
    profile = loaded(tmp_path, text)
    assert terms_of(profile, declared_public=False).unit is profile.corpus.unit
    assert locator_of(profile) == (f"name:{profile.corpus.name}" if profile.corpus.name else source_of(profile).locator)


def test_the_guide_has_a_profile_for_each_kind(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    kinds = {loaded(tmp_path, text).corpus.source.kind for text in PROFILES}
    assert kinds == set(get_args(SourceSettings.model_fields["kind"].annotation))


def test_the_steps_that_the_guide_calls_defaults_are_those(tmp_path: Path) -> None:
    (text,) = [text for text in PROFILES if "these are the defaults" in text]
    assert loaded(tmp_path, text).corpus.source.steps == PresetSteps()


def test_the_guide_names_every_preset_suffix_and_kind_of_redaction() -> None:
    assert [name for name in (*PRESETS, *READERS) if name not in GUIDE] == []
    assert [kind for kind in KINDS if f"`[{kind.upper()}]`" not in GUIDE] == []
    for name, preset in PRESETS.items():
        (line,) = re.findall(rf"^\| `{re.escape(name)}` .*$", GUIDE, re.MULTILINE)
        assert all(f"`{preset.columns[ours]}`" in line for ours in ("user_id", "created_at") if ours in preset.columns)


def test_the_guides_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", GUIDE)
    assert [target for target in targets if not (ROOT / "docs/guides" / target).exists()] == []
