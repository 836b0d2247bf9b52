"""Settings of endpoints and preferences: what is refused when a profile loads, and what makes work out of date."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dp_assets.alignment.settings import OPERATIONAL, EndpointSettings
from dp_assets.corpus.settings import CorpusSettings, SourceSettings
from dp_assets.generation.settings import SamplingParameters
from dp_assets.settings.named import ProfileError, load_profile
from dp_assets.settings.profile import Profile

DEMO = load_profile("demo")
PAPER = load_profile("paper")
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


@pytest.mark.parametrize("group", ["generator", "sft", "reward", "rlhf"])
def test_a_learning_rate_at_which_nothing_is_learned_is_refused_by_name(tmp_path: Path, group: str) -> None:
    with pytest.raises(ProfileError, match=rf"{group}\.learning_rate: .*must be at most 1"):
        load_profile(profile_file(tmp_path, f"[{group}]\nlearning_rate = 1e38\n"))


@pytest.mark.parametrize(
    ("source", "named"), [("judge", "`judge`"), ("file", "`path`"), ("human", "`path`"), ("nobody", "source")]
)
def test_a_source_of_preferences_without_its_settings_is_refused(tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(ProfileError, match=f"preferences.*{named}"):
        load_profile(profile_file(tmp_path, f'[preferences]\nsource = "{source}"\n'))


def test_the_path_of_preferences_is_relative_to_the_profile(tmp_path: Path) -> None:
    text = '[preferences]\nsource = "file"\npath = "pairs.jsonl"\n'
    assert load_profile(profile_file(tmp_path, text)).preferences.path == tmp_path / "pairs.jsonl"


def test_a_request_holds_the_sampling_settings_under_the_names_that_the_model_knows() -> None:
    sampling = SamplingParameters(max_new_tokens=5, temperature=0.5, top_p=0.9, seed=3)
    plain = {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert endpoint().parameters(sampling) == plain
    reasoning = endpoint(
        max_tokens_name="max_completion_tokens", omitted=["temperature", "top_p"], extra_body={"effort": "low"}
    )
    assert reasoning.parameters(sampling) == {"seed": 3, "max_completion_tokens": 5, "effort": "low"}


@pytest.mark.parametrize(
    ("group", "asset", "source"),
    [
        ("annotation", "annotated_instructions", "human"),
        ("preferences", "preference_pairs", "human"),
        ("preferences", "preference_pairs", "file"),
    ],
)
def test_the_content_of_a_file_makes_its_asset_out_of_date_and_its_place_does_not(
    tmp_path: Path, group: str, asset: str, source: str
) -> None:
    def own(name: str) -> str | None:
        text = f'[{group}]\nsource = "{source}"\npath = "{name}"\n'
        return load_profile(profile_file(tmp_path, text)).own_digest(asset)

    for name, content in {"a": "[]", "b": "[]", "c": "[3]"}.items():
        (tmp_path / name).write_text(content)
    assert own("a") == own("b")
    assert len({own("a"), own("c"), own("missing")}) == 3


def test_a_file_that_the_source_does_not_read_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    profile = load_profile(profile_file(tmp_path, f'[preferences]\npath = "{path}"\n'))
    before = profile.own_digest("preference_pairs")
    path.write_text("{}")
    assert profile.own_digest("preference_pairs") == before


def test_other_assets_are_decided_by_the_profile_alone() -> None:
    assert DEMO.own_digest("sft_model") is None


def test_people_need_a_path_for_what_they_answered(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"annotation.*`path`"):
        load_profile(profile_file(tmp_path, '[annotation]\nsource = "human"\n'))


OTHER_VALUES = {
    "base_url": '"http://b/v1"',
    "api_key_variable": '"OTHER_KEY"',
    "omitted": '["seed"]',
    "max_tokens_name": '"max_completion_tokens"',
    "extra_body": "{ a = 1 }",
    "model": '"other"',
    "input_price": "2.0",
    "output_price": "2.0",
}


@pytest.mark.parametrize("name", list(EndpointSettings.model_fields))
@pytest.mark.parametrize("group", ["annotation.endpoint", "preferences.judge"])
def test_only_what_can_change_an_answer_makes_work_out_of_date(tmp_path: Path, group: str, name: str) -> None:
    values = {"base_url": '"http://a/v1"', "model": '"tiny"', "input_price": "1.0", "output_price": "1.0"}

    def digest(settings: dict[str, str]) -> str:
        lines = [f"[{group}]", *(f"{setting} = {value}" for setting, value in settings.items())]
        profile = load_profile(profile_file(tmp_path, "\n".join(lines)))
        assert profile.digest == DEMO.model_copy(update={"name": profile.name}).digest
        own = [profile.own_digest(asset) or "" for asset in ("annotated_instructions", "preference_pairs")]
        return "".join(own)

    changed = digest({**values, name: OTHER_VALUES.get(name, "7")})
    assert (changed == digest(values)) == (name in OPERATIONAL)


@pytest.mark.parametrize(
    ("profile", "digest", "plan"),
    [
        (DEMO, "afc491e9f3f5c5bd", "c28008eade7a99a3dd82baa940dab259a23c5bbf9c3a3ad9a2b8bd1414881519"),
        (PAPER, "964d5ac7b7d8af19", "aea9d742897d2cd7e8493bb9c785b30ea153fea8e485ae789365575fd5cf633b"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_digests_of_the_named_profiles_stay_so_that_nothing_is_out_of_date(
    profile: Profile, digest: str, plan: str
) -> None:
    assert profile.digest == digest
    assert [planned.digest for planned in profile.planned()] == [plan]


TEXT = {"text": "t"}


LMSYS = "lmsys/lmsys-chat-1m"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "table"}, "'chitchat', 'file', 'huggingface' or 'sql'"),
        ({"kind": "chitchat", "path": "a.csv"}, "of kind 'chitchat' takes no path"),
        ({"kind": "file", "path": "a.csv", "columns": TEXT, "query": "select 1"}, "of kind 'file' takes no query"),
        ({"kind": "huggingface", "dataset": LMSYS, "url_variable": "URL"}, "takes no url_variable"),
        ({"kind": "huggingface"}, "either `dataset`, an id on the hub, or a local `path`"),
        ({"kind": "huggingface", "dataset": LMSYS, "path": "a"}, "either `dataset`"),
        ({"kind": "huggingface", "dataset": "https://huggingface.co/a/b"}, "String should match pattern"),
        ({"kind": "huggingface", "dataset": LMSYS, "columns": TEXT}, "leave `columns` out"),
        ({"kind": "huggingface", "dataset": "a/b"}, "a `columns` entry for `text`, or a `preset`"),
        ({"kind": "huggingface", "dataset": "a/b", "preset": "c/d"}, "preset"),
        ({"kind": "huggingface", "dataset": "a/b", "columns": TEXT, "steps": {"languages": []}}, "belong to a preset"),
        ({"kind": "huggingface", "dataset": LMSYS, "steps": {"drop_flagged": "some"}}, "'any', 'first', 'last' or"),
        ({"kind": "sql", "columns": TEXT}, "needs `query`"),
        ({"kind": "sql", "query": "select 1"}, "a `columns` entry for `text`"),
        ({"kind": "sql", "query": "select 1", "columns": TEXT, "path": "a", "url_variable": "URL"}, "not both"),
        (
            {"kind": "sql", "query": "select 1", "columns": TEXT, "url_variable": "pg://me:hunter2@db"},
            "give the name of",
        ),
    ],
)
def test_settings_that_do_not_fit_their_kind_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        SourceSettings.model_validate(settings)
    messages = [error["msg"] for error in refusal.value.errors()]
    assert any(message in each for each in messages) or message in str(refusal.value)
    assert not any("hunter2" in each for each in messages)


@pytest.mark.parametrize(
    "changed", [{"name": "My Corpus"}, {"name": ""}, {"redact": ["names"]}, {"detect_language": "perhaps"}]
)
def test_a_name_or_a_step_that_does_not_exist_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changed))):
        CorpusSettings.model_validate(DEMO.corpus.model_dump() | changed)
