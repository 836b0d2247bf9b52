"""Settings of a corpus that do not go together are refused when they are read."""

from typing import Any

import pytest
from pydantic import ValidationError

from dp_assets.corpus.settings import CorpusSettings, SourceSettings
from dp_assets.settings.named import load_profile

DEMO = load_profile("demo")

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
