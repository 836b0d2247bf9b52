"""Settings of endpoints, annotators and preferences: what is refused when a profile loads."""

from pathlib import Path
from typing import Any

import pytest

from dp_assets.alignment.settings import EndpointSettings
from dp_assets.generation.settings import SamplingParameters
from dp_assets.settings.named import ProfileError, load_profile

DEMO = load_profile("demo")

ENDPOINT = 'base_url = "http://127.0.0.1:8000/v1"\nmodel = "tiny"\n'


def profile_file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def endpoint(**changes: Any) -> EndpointSettings:
    return EndpointSettings(**{"base_url": "http://127.0.0.1:8000/v1", "model": "tiny", **changes})


def test_without_settings_the_local_model_answers_and_no_judge_is_asked() -> None:
    assert DEMO.annotation.endpoint is None
    assert (DEMO.preferences.source, DEMO.preferences.judge) == ("offline", None)
    assert DEMO.annotation.parameters == SamplingParameters(max_new_tokens=40, temperature=0.0, top_p=1.0, seed=3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('base_url = "localhost:8000"\nmodel = "m"', "annotation.endpoint.base_url: .*https://"),
        ('base_url = "http://h/v1?key=1"\nmodel = "m"', "annotation.endpoint.base_url"),
        ('base_url = "https://me:pass@h/v1"\nmodel = "m"', "annotation.endpoint.base_url: .*before the @"),
        ('base_url = "http://h/v1"', "annotation.endpoint.model"),
        (ENDPOINT + 'api_key_variable = "sk-4f9"', "annotation.endpoint.api_key_variable: .*never the key itself"),
        (ENDPOINT + "input_price = 1.0", "annotation.endpoint: .*come together"),
        (ENDPOINT + "budget_money = 1.0", "annotation.endpoint: .*needs input_price"),
        (ENDPOINT + "concurrency = 0", "annotation.endpoint.concurrency"),
        (ENDPOINT + 'omitted = ["model"]', "annotation.endpoint.omitted"),
        (ENDPOINT + 'api_key = "sk-4f9"', "annotation.endpoint.api_key: "),
    ],
)
def test_settings_of_an_endpoint_that_cannot_work_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ProfileError, match=named) as refusal:
        load_profile(profile_file(tmp_path, f"[annotation.endpoint]\n{text}\n"))
    assert "sk-4f9" not in str(refusal.value)
    assert "pass@" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "named"), [("judge", "`judge`"), ("file", "`path`"), ("human", "`path`"), ("nobody", "source")]
)
def test_a_source_of_preferences_without_its_settings_is_refused(tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(ProfileError, match=f"preferences.*{named}"):
        load_profile(profile_file(tmp_path, f'[preferences]\nsource = "{source}"\n'))


def test_a_request_holds_the_sampling_settings_under_the_names_that_the_model_knows() -> None:
    sampling = SamplingParameters(max_new_tokens=5, temperature=0.5, top_p=0.9, seed=3)
    plain = {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert endpoint().parameters(sampling) == plain
    reasoning = endpoint(
        max_tokens_name="max_completion_tokens", omitted=["temperature", "top_p"], extra_body={"effort": "low"}
    )
    assert reasoning.parameters(sampling) == {"seed": 3, "max_completion_tokens": 5, "effort": "low"}


def test_people_need_a_path_for_what_they_answered(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"annotation.*`path`"):
        load_profile(profile_file(tmp_path, '[annotation]\nsource = "human"\n'))
