"""Samples for short bins. Each round is stored as it is drawn, so that an interrupted run continues with the next."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dp_assets.artifacts import Adapter, adapter_digest
from dp_assets.privacy.labels import Zone, zone
from dp_assets.progress import Advance, progress, silent
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import label_of
from dp_assets.stages.sampling import generator_loading
from dp_assets.vocabulary import Partition
from resources.annotator import samples_file
from resources.models.loaders import LanguageModel

if TYPE_CHECKING:
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.selection.top_up import Draw


@contextmanager
def kept_draws(
    context: dg.AssetExecutionContext, home: Path, language_model: LanguageModel, generator: Adapter, profile: Profile
) -> "Iterator[Draw]":
    """Open a function that samples texts from the generator and reads from a file the rounds that were drawn before.

    - The file is locked until the block ends.
    - In the private zone, as at the level no-dp, everything is sampled anew and nothing is stored.

    Args:
      context: the context of the asset that runs.
      home: the data folder.
      language_model: the base model.
      generator: the adapter of the generator.
      profile: the settings of sampling and of the top-up.

    Raises:
      AnswersBusy: another run is drawing for the same partition.
    """
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.generation.drawing import generator_sampler

    fixed = {"num_samples", "seed"}
    level = Partition.of(context).level
    load = generator_loading(language_model, generator, profile.sampling, level=level)
    with progress_once("topping up short bins", profile.selection.top_up_samples, "samples") as advance:
        draw = generator_sampler(load, profile.sampling, advance=advance)
        if zone(label_of(context), level) is not Zone.RELEASED:
            yield draw
            return
        digest = adapter_digest(generator.weights, generator.config)
        identity = {
            "base": language_model.public_name,
            "generator": digest,
            **profile.sampling.model_dump(exclude=fixed),
        }
        path = samples_file(home, context.asset_key.to_user_string(), context.partition_key)
        with AnswersStore.opened(path) as store:
            yield kept(draw, store, identity, advance=advance)


@contextmanager
def progress_once(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Open one progress over all rounds. It is shown from the first round on, because most runs need no round."""
    with ExitStack() as shown:

        @cache
        def begun() -> Advance:
            return shown.enter_context(progress(label, total, unit))

        yield lambda increment: begun()(increment)


def kept(draw: "Draw", store: "AnswersStore", identity: Mapping[str, Any], *, advance: Advance = silent) -> "Draw":
    """Return `draw` with storage: each round is stored whole, under a hash of everything that decides it.

    `identity` is the part of it that all rounds share. `advance` is called for rounds that are read from the store.
    """
    from dp_assets.alignment.answers_store import Answer, Outcome, Usage

    def drawn(steerings: Sequence[tuple[Sequence[str], str]], seed: int) -> list[str]:
        asked = {"steerings": steerings, "seed": seed, **identity}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if store.last_outcome(key) is None:
            store.add(Answer(key, Outcome.ANSWERED, json.dumps(draw(steerings, seed)), Usage()))
        else:
            advance(len(steerings))
        texts: list[str] = json.loads(store.text(key))
        return texts

    return drawn
