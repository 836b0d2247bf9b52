"""Which engine samples from the generator."""

from collections.abc import Callable
from functools import partial
from typing import Any

from dp_assets.artifacts import Adapter
from resources.models import LanguageModel
from resources.profile import SamplingSettings


def generator_loading(
    language_model: LanguageModel, adapter: Adapter | None, settings: SamplingSettings
) -> Callable[[], tuple[Any, Any]]:
    """Loads what texts are sampled from, in the engine of the settings: the base model, with `adapter` if given."""
    from dp_assets.generation.drawing import with_adapter

    if settings.engine == "vllm":
        return partial(language_model.load_in_vllm, adapter, texts_in_flight=settings.batch_size)
    return language_model.load if adapter is None else with_adapter(language_model.load, adapter)
