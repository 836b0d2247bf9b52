"""The way out to an endpoint: released rows only, and a key from the environment only."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dp_assets.alignment.settings import EndpointSettings
from dp_assets.privacy.labels import NO_DP, Label
from resources.annotator import NO_KEY, Annotator, MissingKey, NotReleased

VARIABLE = "SOME_SERVICE_KEY"


def annotator(home: Path, **settings: Any) -> Annotator:
    endpoint = EndpointSettings(base_url="http://127.0.0.1:8000/v1", model="tiny", **settings)
    return Annotator("annotation.endpoint", endpoint, home)


@pytest.mark.parametrize("label", [Label.RELEASED, Label.MECHANISM])
def test_what_lies_in_the_released_zone_may_be_sent(tmp_path: Path, label: Label) -> None:
    out = annotator(tmp_path)
    assert out.admitted(label, "eps-8") is out.endpoint


@pytest.mark.parametrize(
    ("label", "level"),
    [(Label.PRIVATE, "eps-8"), (Label.PRIVATE, None), (Label.RELEASED, NO_DP), (Label.MECHANISM, NO_DP)],
)
def test_private_rows_and_those_made_without_noise_are_refused_with_the_remedy(
    tmp_path: Path, label: Label, level: str | None
) -> None:
    with pytest.raises(NotReleased, match=r"annotation\.endpoint may only be sent .*local model") as refusal:
        annotator(tmp_path).admitted(label, level)
    assert isinstance(refusal.value, dg.Failure)
    assert not refusal.value.allow_retries


def test_an_endpoint_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preferences\.judge is not set"):
        Annotator("preferences.judge", None, tmp_path).admitted(Label.RELEASED, "eps-8")


def test_the_key_is_read_from_its_variable_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = annotator(tmp_path, api_key_variable=VARIABLE)
    monkeypatch.setenv(VARIABLE, " sk-inside\n")
    assert out.api_key() == "sk-inside"
    assert "sk-inside" not in repr(out)


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_missing_key_is_named_with_its_setting_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(MissingKey, match=rf"annotation\.endpoint\.api_key_variable is '{VARIABLE}'.*export it"):
        annotator(tmp_path, api_key_variable=VARIABLE).api_key()


def test_a_server_without_a_key_is_sent_no_other_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    assert annotator(tmp_path).api_key() == NO_KEY


def test_each_partition_of_each_asset_has_a_file_of_its_own_in_the_released_zone(tmp_path: Path) -> None:
    out = annotator(tmp_path)
    names = [("annotated_instructions", "all|eps-8"), ("annotated_instructions", "all|eps-2.86")]
    files = [out.answers_file(*name) for name in [*names, ("preference_pairs", "2026-Q1|eps-8")]]
    folder = tmp_path / "released" / "answers"
    assert files == [
        folder / "annotated_instructions/all/eps-8.jsonl",
        folder / "annotated_instructions/all/eps-2.86.jsonl",
        folder / "preference_pairs/2026-Q1/eps-8.jsonl",
    ]
