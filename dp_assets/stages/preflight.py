"""Checks before a run spends anything: whether the endpoints, files and models that a profile names can be used.

The command line makes them when it starts. A mechanism makes those of the rest of its own run just before it charges,
because runs launched in the UI or by a schedule do not go through the command line.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.generation.settings import SamplingParameters
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import connected, endpoint_of
from dp_assets.stages.preferences import preferences_of_file
from dp_assets.stages.public_checks import LANGUAGE_MODEL, MECHANISMS, PublicCheck, model_checks, require_public
from dp_assets.vocabulary import Partition
from resources.annotator import Annotator, NotReady, annotators_of
from resources.models.loaders import Embedder, LanguageModel

MADE_JUST_BEFORE = {"annotated_instructions": "filtered_instructions", "preference_pairs": "sft_model"}
"""The last input of an asset that asks an endpoint. If it is stored, the asset itself finds at once what is missing."""


@dataclass(frozen=True)
class RestOfRun:
    """The assets that a run makes besides its mechanism, and the resources they use."""

    context: dg.AssetExecutionContext
    profile: Profile
    home: str
    language_model: LanguageModel
    embedder: Embedder

    def require_ready(self) -> None:
        """Check what the assets of this run need: models on public text, endpoints and files.

        Raises:
          NotReady: something cannot be used; see `check_outside`.
        """
        wanted = {key.to_user_string() for key in self.context.job_def.asset_layer.executable_asset_keys}
        home = Path(self.home)
        used = {
            LANGUAGE_MODEL: self.language_model,
            "embedder": self.embedder,
            **annotators_of(self.profile, home),
        }
        check_outside(self.profile, used, home, self.context.partition_key, wanted)


def check_outside(profile: Profile, resources: Mapping[str, Any], home: Path, partition: str, wanted: Set[str]) -> None:
    """Check the endpoints, the preference file and the models that some assets of a partition need.

    - An endpoint that lists the model is asked for the list only. Another one gets one short probe, which counts
      towards the budget of its table.
    - If a mechanism is among the assets, the models are tried too (`public_checks`), because a charge may follow.
      Private training is tried by the generator itself.

    Args:
      profile: the settings.
      resources: the language model, the embedder and the annotators, by name.
      home: the data folder.
      partition: the key of the partition.
      wanted: the names of the assets.

    Raises:
      NotReady: a key is missing, an endpoint is unreachable or does not know the model, a file cannot be read, a
        partition of the private zone would be sent out, or a model cannot do what a stage needs.
    """
    if profile.preferences.source == "file" and "preference_pairs" in wanted:
        with _not_ready():
            preferences_of_file(profile.preferences)
    for asset, annotator, sampling in _endpoints(profile, resources):
        if asset in wanted and MADE_JUST_BEFORE[asset] in wanted:
            with _not_ready():
                _check_endpoint(annotator, asset, partition, sampling)
    if not wanted.isdisjoint(MECHANISMS):
        models = resources[LANGUAGE_MODEL], resources["embedder"]
        require_public(model_checks(profile, *models, home, level=Partition.named(partition).level), wanted)


def _endpoints(profile: Profile, resources: Mapping[str, Any]) -> Iterator[tuple[str, Annotator, SamplingParameters]]:
    """Yield the endpoints that the profile chooses: asset that asks, annotator, and how an answer is sampled."""
    if profile.annotation.source == "model" and profile.annotation.endpoint is not None:
        yield "annotated_instructions", resources["annotator"], profile.annotation.parameters
    if profile.preferences.source == "judge":
        yield "preference_pairs", resources["judge"], profile.preferences.judge_parameters


def endpoint_checks(profile: Profile, home: Path) -> list[PublicCheck]:
    """Return checks that a server answers at each endpoint that the profile chooses and that its key can be sent.

    They cost nothing.
    """
    return [
        PublicCheck(annotator.group, (asset,), partial(_require_served, annotator, sampling))
        for asset, annotator, sampling in _endpoints(profile, annotators_of(profile, home))
    ]


def _require_served(annotator: Annotator, sampling: SamplingParameters) -> None:
    with _not_ready():
        settings = annotator.admitted(Label.RELEASED, None)
        endpoint_of(annotator, settings, sampling=sampling, system=None).require_served()


def _check_endpoint(annotator: Annotator, asset: str, partition: str, sampling: SamplingParameters) -> None:
    from dp_assets.alignment.endpoint import check_endpoint

    settings = annotator.admitted(Label.RELEASED, Partition.named(partition).level)
    path = annotator.answers_file(asset, partition)
    with connected(annotator, settings, path, sampling=sampling, system=None) as connection:
        check_endpoint(connection)


@contextmanager
def _not_ready() -> Iterator[None]:
    try:
        yield
    except PublicError as refusal:
        raise NotReady(str(refusal)) from None
