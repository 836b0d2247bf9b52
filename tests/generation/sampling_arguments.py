"""Arguments of the samplers as tests write them: flat, with single ones changed."""

import dataclasses
from typing import Any

from dp_assets.generation.settings import SamplingParameters

FIELDS = {each.name for each in dataclasses.fields(SamplingParameters)}


def sampling_arguments(flat: dict[str, Any]) -> dict[str, Any]:
    """The same with those that are fields of `SamplingParameters` in one value."""
    sampling = SamplingParameters(**{name: value for name, value in flat.items() if name in FIELDS})
    return {name: value for name, value in flat.items() if name not in FIELDS} | {"sampling": sampling}
