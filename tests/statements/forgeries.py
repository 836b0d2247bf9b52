"""Statements as a forger writes them, and why they are refused."""

import copy
from collections.abc import Callable
from typing import Any

from dp_assets.statements.reading import StatementError
from dp_assets.statements.statement import digest_of, sealed
from dp_assets.statements.verification import verification_of_file
from tests.statements.edits import spelled
from tests.statements.statements import (
    planned,
)

Statement = dict[str, Any]


def document(statement: Statement) -> Statement:
    return {"charge_ids": [charge["charge_id"] for charge in statement["charges"]], "data": statement}


def accepted(content: bytes) -> Statement | None:
    """The statement that is shown for these bytes, None if they are refused."""
    try:
        verification = verification_of_file(content)
    except StatementError:
        return None
    return None if verification.wrong else dict(verification.rebuilt or {})


def resealed(changed: Any) -> Any:
    """With the digests of what was changed, as a forger would write them."""
    if not isinstance(changed, dict) or not isinstance(changed.get("data"), dict):
        return changed
    data = copy.deepcopy(changed["data"])
    if isinstance(data.get("configuration"), dict) and "profile" in data["configuration"]:
        data["configuration"]["sha256"] = digest_of(data["configuration"]["profile"])
    return {**changed, "data": sealed(data)}


def refusal(content: bytes) -> str:
    """Why these bytes are refused."""
    try:
        wrong = verification_of_file(content).wrong
    except StatementError as error:
        return str(error)
    assert wrong, "it is accepted"
    return "; ".join(wrong)


def refusal_of(change: Callable[[Statement], object], make: Callable[[], Statement] = planned) -> str:
    """Why a statement is refused that a forger changed so and sealed anew."""
    changed = make()
    change(changed)
    return refusal(spelled(resealed(document(changed))))
