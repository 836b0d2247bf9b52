"""What a profile decides: which work a change makes out of date, and digests that stay."""

from pathlib import Path

import pytest

from dp_assets.alignment.settings import OPERATIONAL, EndpointSettings
from dp_assets.settings.named import ProfileError, load_profile
from dp_assets.settings.profile import Profile

DEMO = load_profile("demo")

PAPER = load_profile("paper")

ENDPOINT = 'base_url = "http://127.0.0.1:8000/v1"\nmodel = "tiny"\n'


def profile_file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("group", ["generator", "sft", "reward", "rlhf"])
def test_a_learning_rate_at_which_nothing_is_learned_is_refused_by_name(tmp_path: Path, group: str) -> None:
    with pytest.raises(ProfileError, match=rf"{group}\.learning_rate: .*must be at most 1"):
        load_profile(profile_file(tmp_path, f"[{group}]\nlearning_rate = 1e38\n"))


def test_the_path_of_preferences_is_relative_to_the_profile(tmp_path: Path) -> None:
    text = '[preferences]\nsource = "file"\npath = "pairs.jsonl"\n'
    assert load_profile(profile_file(tmp_path, text)).preferences.path == tmp_path / "pairs.jsonl"


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
