"""Cards of an export: front matter that the hub reads, the guarantee first, and every name as text."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from dp_assets.export.folder import write_export
from tests.export.releases import ADAPTERS, SETTINGS, gathered, release_everything, statement_in


def test_the_data_set_card_has_a_config_for_every_table_and_the_first_is_the_default(exported: Path) -> None:
    data = DatasetCard.load(exported / "README.md").data
    assert [config["config_name"] for config in data.configs] == [
        "filtered", "annotated", "preferences", "pool", "histogram", "bins",
    ]  # fmt: skip
    assert [config["config_name"] for config in data.configs if config.get("default")] == ["filtered"]
    for config in data.configs:
        (files,) = config["data_files"]
        assert len(list(exported.glob(files["path"]))) == 1
    assert (data.license, data.language, data.size_categories) == ("cc-by-4.0", ["en"], "n<1K")
    assert "differential-privacy" in data.tags


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_model_card_names_its_base_and_its_library(exported: Path, name: str) -> None:
    data = ModelCard.load(exported / "models" / name / "README.md").data
    assert (data.base_model, data.library_name, data.license) == ("a-model", "peft", "cc-by-4.0")
    assert data.pipeline_tag == ("text-classification" if name == "reward" else "text-generation")


@pytest.mark.parametrize("card", ["README.md", *(f"models/{name}/README.md" for name in ADAPTERS)])
def test_every_card_states_the_cohorts_epsilon_first_then_its_own_then_the_terms(exported: Path, card: str) -> None:
    statement, text = statement_in(exported), (exported / card).read_text()
    headline = f"epsilon {statement['guarantee']['headline_epsilon']:g} at delta 1e-05"
    own = "Everything in this folder together: epsilon" if card == "README.md" else "This model alone: epsilon"
    places = [text.index(words) for words in (headline, own, "Delta:", "Unit:", "Relation:", "## Not covered")]
    assert places == sorted(places)
    assert all(limit in text for limit in statement["not_covered"])


def test_without_a_license_the_card_has_none_and_says_so(tmp_path: Path) -> None:
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"), "pool")
    write_export(tmp_path / "out", release, replace(SETTINGS, license_id=None, languages=()), names={})
    card = DatasetCard.load(tmp_path / "out/README.md")
    assert card.data.license is None
    assert card.data.language is None
    assert "No licence was stated" in card.text


def test_what_is_stored_but_out_of_date_is_said_to_be(tmp_path: Path) -> None:
    state = release_everything(tmp_path / "data")
    release = gathered(tmp_path / "data", state, "pool", stale={"synthetic_pool"}, as_stored=True)
    write_export(tmp_path / "out", release, SETTINGS, names={})
    assert "Exported as it was stored: synthetic_pool" in (tmp_path / "out/README.md").read_text()


def test_the_name_of_a_base_model_is_text_in_cards_and_in_their_code(tmp_path: Path) -> None:
    state = release_everything(tmp_path / "data", base_model="org/m__x__")
    write_export(tmp_path / "out", gathered(tmp_path / "data", state), SETTINGS, names={})
    assert "with `org/m__x__` as the base" in (tmp_path / "out/README.md").read_text()
    card = (tmp_path / "out/models/generator/README.md").read_text()
    assert "Base model: `org/m__x__`." in card
    assert 'from_pretrained("org/m__x__"' in card
