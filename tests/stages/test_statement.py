"""What a statement says of the settings: none of the places of the source."""

import json
from typing import Any

import pytest

from dp_assets.settings.named import load_profile
from dp_assets.settings.profile import Profile
from dp_assets.stages.statement import public_settings

TEXT = {"text": "t"}


def profile_of(source: dict[str, Any], **corpus: Any) -> Profile:
    settings = load_profile("demo").model_dump()
    return Profile.model_validate(settings | {"corpus": settings["corpus"] | {"source": source} | corpus})


@pytest.mark.parametrize(
    "source",
    [
        {
            "kind": "huggingface",
            "dataset": "secret-team/chats",
            "columns": TEXT,
            "subset": "secret",
            "revision": "secret",
        },
        {"kind": "sql", "query": "select secret", "columns": TEXT, "path": "/srv/secret.duckdb"},
        {"kind": "sql", "query": "select secret", "columns": TEXT, "url_variable": "SECRET_URL"},
    ],
)
def test_a_statement_does_not_say_where_the_source_lies(source: dict[str, Any]) -> None:
    settings = json.dumps(public_settings(profile_of(source, unit="instruction")))
    assert "secret" not in settings.lower()
    assert source["kind"] in settings
