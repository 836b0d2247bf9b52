"""What a corpus is bound to is registered: neither its rows nor a setting of the profile changes it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dp_assets.pipeline.corpus import terms_of
from tests.corpus.test_prepare import prepared, row
from tests.tiny_pipeline import tiny_profile


def users(number: int, rows_each: int) -> list[Any]:
    return [
        row(f"why is it {n} {m}", user=f"user-{n}", name=f"{n}-{m}") for n in range(number) for m in range(rows_each)
    ]


@pytest.mark.parametrize("company", [[], users(40, 1), users(40, 9)], ids=["alone", "among small", "among large"])
@pytest.mark.parametrize("bound", [1, 3, 5])
def test_the_contribution_bound_is_the_registered_one_whatever_rows_others_have(company: list[Any], bound: int) -> None:
    own = [row(f"how are you {n}", user="anna", name=f"anna-{n}") for n in range(7)]
    alone = prepared(own, max_rows_per_unit=bound)
    assert alone.height == bound
    (unit_id,) = set(alone["unit_id"])
    among = prepared([*own, *company], max_rows_per_unit=bound)
    assert among.filter(among["unit_id"] == unit_id).equals(alone)


def flags(form: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of all true-or-false settings."""
    if isinstance(form, dict):
        return [found for name, value in form.items() for found in flags(value, (*path, name))]
    return [path] if isinstance(form, bool) else []


def test_no_setting_makes_a_private_corpus_public(tmp_path: Path) -> None:
    profile = tiny_profile(tmp_path / "corpus.parquet", Path("no model"))
    assert not terms_of(profile, declared_public=False).is_public
    assert terms_of(profile, declared_public=True).is_public
    settings = profile.model_dump(mode="json")
    assert not any("public" in name for name in (*settings["corpus"], *settings["corpus"]["source"]))
    for *groups, name in flags(settings["corpus"]):
        changed = profile.model_dump(mode="json")
        place = changed["corpus"]
        for group in groups:
            place = place[group]
        place[name] = not place[name]
        with suppress(ValueError):  # a setting that does not go with the others is refused anyway
            assert not terms_of(type(profile).model_validate(changed), declared_public=False).is_public
