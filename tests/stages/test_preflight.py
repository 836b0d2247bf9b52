"""What a run needs from outside is looked at before it spends anything."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from dp_assets.settings.profile import Profile
from dp_assets.stages.preflight import check_outside
from resources.annotator import NotReady
from resources.build import build_resources
from tests.alignment.fake_endpoint import MODEL, PROBE_TEXT, FakeEndpoint, serving
from tests.tiny_pipeline import PARTITION, tiny_profile

VARIABLE, KEY = "TINY_SERVICE_KEY", "sk-inside"
EVERYTHING = ("filtered_instructions", "annotated_instructions", "sft_model", "preference_pairs")
NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def endpoint(url: str, **changes: Any) -> dict[str, Any]:
    patience = {"attempts": 2, "backoff_seconds": 0.01, "timeout_seconds": 5.0}
    return {"base_url": url, "model": MODEL, "api_key_variable": VARIABLE, **patience, **changes}


def profile_with(home: Path, **groups: dict[str, Any]) -> Profile:
    plain = tiny_profile(home / "corpus.parquet", Path("no model")).model_dump(mode="json")
    return Profile.model_validate(plain | {name: plain[name] | group for name, group in groups.items()})


def annotating(home: Path, url: str, **changes: Any) -> Profile:
    return profile_with(home, annotation={"endpoint": endpoint(url, **changes)})


def judging(home: Path, url: str, **changes: Any) -> Profile:
    return profile_with(home, preferences={"source": "judge", "judge": endpoint(url, **changes)})


def check(home: Path, profile: Profile, *, wanted: Collection[str] = EVERYTHING, partition: str = PARTITION) -> None:
    check_outside(profile, build_resources(profile, home), home, partition, set(wanted))


BOTH = pytest.mark.parametrize(
    ("asking", "group"), [(annotating, "annotation.endpoint"), (judging, "preferences.judge")]
)


@BOTH
def test_a_sound_endpoint_that_lists_its_model_is_sent_nothing_that_costs(
    tmp_path: Path, asking: Any, group: str
) -> None:
    with serving(FakeEndpoint(key=KEY)) as server:
        check(tmp_path, asking(tmp_path, server.url))
    assert server.requests == []


@BOTH
def test_a_missing_key_is_named_and_nothing_is_sent(
    tmp_path: Path, asking: Any, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with serving(FakeEndpoint()) as server, pytest.raises(NotReady, match=rf"{group}\.api_key_variable .*export it"):
        check(tmp_path, asking(tmp_path, server.url))
    assert server.requests == []


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@BOTH
@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-“quoted”", "sk-one\nsk-two", "Bearer sk-one"])
def test_a_key_that_cannot_be_sent_is_named_and_not_repeated(
    tmp_path: Path, asking: Any, group: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, key)
    with serving(FakeEndpoint()) as server, pytest.raises(NotReady, match=rf"{group}\.api_key_variable") as refusal:
        check(tmp_path, asking(tmp_path, server.url))
    assert "export the key again" in str(refusal.value)
    assert key not in str(refusal.value)
    assert server.requests == []


@BOTH
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "gopher://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_a_proxy_or_a_certificate_file_that_cannot_be_used_is_a_refusal(
    tmp_path: Path, asking: Any, group: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    with pytest.raises(NotReady, match=rf"{group} cannot be asked with the proxy .*{variable}"):
        check(tmp_path, asking(tmp_path, "https://127.0.0.1:9/v1"))


@BOTH
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1 ", "http://127.0.0.1:9/v1\n", "http://127.0.0.1:99999/v1"])
def test_an_address_that_no_client_takes_is_no_setting(tmp_path: Path, asking: Any, group: str, url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        asking(tmp_path, url)


@BOTH
def test_an_endpoint_that_nobody_serves_is_named_with_its_remedy(tmp_path: Path, asking: Any, group: str) -> None:
    with pytest.raises(NotReady, match=rf"{group}\.base_url .*gives no answer \(no connection\); start the server"):
        check(tmp_path, asking(tmp_path, NOBODY))


@BOTH
def test_an_unknown_model_is_named_with_those_that_there_are(tmp_path: Path, asking: Any, group: str) -> None:
    with serving(FakeEndpoint()) as server:
        with pytest.raises(NotReady, match=rf"{group}\.model 'huge' is unknown .*it offers {MODEL}"):
            check(tmp_path, asking(tmp_path, server.url, model="huge"))
        assert {request.question for request in server.requests} == {PROBE_TEXT}


def test_a_model_that_is_not_listed_but_answers_is_fine(tmp_path: Path) -> None:
    with serving(FakeEndpoint(listed=("another-name",))) as server:
        check(tmp_path, annotating(tmp_path, server.url))
        assert [request.question for request in server.requests] == [PROBE_TEXT]


def test_a_server_without_a_list_is_probed_and_the_probe_counts(tmp_path: Path) -> None:
    with serving(FakeEndpoint(listed=None)) as server:
        check(tmp_path, annotating(tmp_path, server.url))
        assert [request.question for request in server.requests] == [PROBE_TEXT]
    assert '"probe"' in (tmp_path / "released/answers/annotated_instructions/all/eps-8.jsonl").read_text()


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    with (
        serving(FakeEndpoint(key="another", listed=None)) as server,
        pytest.raises(NotReady, match=r"does not accept the key .*api_key_variable"),
    ):
        check(tmp_path, annotating(tmp_path, server.url))


def test_a_budget_that_is_spent_is_named(tmp_path: Path) -> None:
    with (
        serving(FakeEndpoint(listed=None)) as server,
        pytest.raises(NotReady, match=r"annotation\.endpoint\.budget_tokens is 5.*raise the limit"),
    ):
        check(tmp_path, annotating(tmp_path, server.url, budget_tokens=5))
    assert server.requests == []


@BOTH
def test_nothing_is_asked_for_the_level_without_noise(tmp_path: Path, asking: Any, group: str) -> None:
    with serving(FakeEndpoint()) as server, pytest.raises(NotReady, match="may only be sent what lies in the released"):
        check(tmp_path, asking(tmp_path, server.url), partition="all|no-dp")
    assert server.requests == []
    assert not (tmp_path / "released").exists()


@pytest.mark.parametrize("wanted", [(), ("quality_report",), ("annotated_instructions", "sft_model")])
def test_a_server_that_is_not_needed_or_that_the_asset_asks_at_once_is_left_alone(
    tmp_path: Path, wanted: Collection[str]
) -> None:
    check(tmp_path, annotating(tmp_path, NOBODY), wanted=wanted)


def test_an_endpoint_that_people_replace_is_left_alone(tmp_path: Path) -> None:
    people = {"source": "human", "path": "done.json", "endpoint": endpoint(NOBODY)}
    check(tmp_path, profile_with(tmp_path, annotation=people))


def test_a_preference_file_is_read_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    profile = profile_with(tmp_path, preferences={"source": "file", "path": str(path)})
    with pytest.raises(NotReady, match=r"preferences\.path .*correct the path"):
        check(tmp_path, profile)
    pl.DataFrame({"prompt": ["why?"], "chosen": ["so"]}).write_parquet(path)
    with pytest.raises(NotReady, match="rejected is missing"):
        check(tmp_path, profile)
    check(tmp_path, profile, wanted=("filtered_instructions",))
