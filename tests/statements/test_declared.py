"""Facts that nothing proves have a declared form each, and nothing else stands in their place."""

from typing import Any

import pytest

from tests.statements.forgeries import Statement, refusal_of


@pytest.mark.parametrize("part", ["guarantee", "terms", "plans", "evidence", "release", "source", "ledger", "code"])
def test_a_part_with_one_item_more_is_refused(part: str) -> None:
    assert part in refusal_of(lambda statement: statement[part].update(note=0.05))


@pytest.mark.parametrize("missing", ["corpus", "generator", "votes"])
def test_a_profile_without_the_settings_of_plans_is_refused(missing: str) -> None:
    assert f"configuration.profile.{missing}" in refusal_of(lambda one: one["configuration"]["profile"].pop(missing))


@pytest.mark.parametrize("tensors", ["epsilon 0.05", 2, {"count": 0, "sha256": "0" * 64}])
def test_what_was_trained_is_a_fingerprint_of_something_and_no_text(tensors: Any) -> None:
    both = {"trained_tensors": tensors, "noised_tensors": tensors}
    assert "evidence" in refusal_of(lambda statement: statement["evidence"]["dp_generator"].update(both))


@pytest.mark.parametrize(
    "name",
    [
        "m **epsilon 0.05**",
        'm"); import os',
        "m (certified)",
        "m &#8238;",
        "m\u202e",
        "\u0435psilon",
        "m\n",
        "m" * 301,
        "",
    ],
)
def test_a_base_model_that_is_no_id_and_no_path_is_refused(name: str) -> None:
    assert "base_model" in refusal_of(lambda statement: statement.update(base_model=name))


@pytest.mark.parametrize("number", [10**4000, 2**63, -1, True, 1.5])
def test_a_count_in_the_evidence_that_is_none_is_refused(number: float) -> None:
    def change(statement: Statement) -> None:
        statement["evidence"]["dp_generator"]["num_parameters"] = number
        statement["evidence"]["dp_generator"]["noise_coordinates"] = 4 * number

    assert "num_parameters" in refusal_of(change) or "noise_coordinates" in refusal_of(change)


@pytest.mark.parametrize(
    "place", ["/etc/all/eps-8", "../all/eps-8", "dp_generator/../../x", "dp_generator//x", "a\u202eb/c"]
)
def test_a_place_of_a_file_outside_its_folder_is_refused(place: str) -> None:
    assert "files" in refusal_of(lambda statement: statement["files"].update({place: "0" * 64}))
