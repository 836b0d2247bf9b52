"""What registration fixes: every term but the budget, each refused by name where a profile differs."""

from dataclasses import fields, replace
from typing import Any

import pytest

from dp_assets.privacy.registration import RegistrationError, Terms
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from tests.privacy.plans import small_terms
from tests.statements.statements import CORPUS

OTHERS: dict[str, Any] = {
    "unit": PrivacyUnit.INSTRUCTION,
    "unit_columns": "e-mail",
    "max_rows_per_unit": 3,
    "cohorts": ("all", "others"),
    "cohort_function": "another",
    "delta": 1e-6,
    "is_public": True,
    "relation": "REPLACE_ONE",
    "without_user": WithoutUser.DROP,
    "query": "another",
}


def test_each_term_is_tried_here_but_the_budget_which_a_command_raises() -> None:
    assert OTHERS.keys() == {field.name for field in fields(Terms)} - {"budget_epsilon"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_profile_that_differs_in_one_term_is_refused(name: str) -> None:
    CORPUS.check_unchanged(small_terms())
    with pytest.raises(RegistrationError, match="registered with another"):
        CORPUS.check_unchanged(replace(small_terms(), **{name: OTHERS[name]}))


def test_a_profile_that_does_not_declare_a_public_corpus_anew_is_not_refused() -> None:
    replace(CORPUS, is_public=True).check_unchanged(small_terms())
