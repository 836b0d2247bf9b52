"""What groups of settings have in common: their base class, and types of fields that several of them use.

Each package states the settings of its own stage in a module `settings`, without torch; `dp_assets/settings` composes
the profile of them.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dp_assets.privacy.ledger_state import ERASED_SUFFIX

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
PositiveReal = Annotated[float, Field(gt=0)]
NonNegativeReal = Annotated[float, Field(ge=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
ModelDtype = Literal["auto", "float32", "bfloat16"]
PARTING_CHARACTERS = "|/\\"
LONGEST_NAME = 100
VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


def check_name(name: str) -> str:
    """A public name that becomes part of paths, partition keys and ledger entries, unchanged.

    Raises:
      ValueError: it could be taken apart at a wrong place, leave its folder, or pass for another one.
    """
    if not name.isprintable() or any(character in name for character in PARTING_CHARACTERS):
        raise ValueError("must not contain | / \\ or characters that cannot be printed; use letters, digits, - and .")
    if not name or name != name.strip() or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"must have 1 to {LONGEST_NAME} bytes, not begin with a dot, and not begin or end with a space"
        )
    if ERASED_SUFFIX in name:
        raise ValueError(f"must not contain {ERASED_SUFFIX!r}: the ledger adds that itself when a unit is erased")
    return name


PublicName = Annotated[str, AfterValidator(check_name)]


class Settings(BaseModel):
    """A group of settings: frozen, and a misspelled name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
