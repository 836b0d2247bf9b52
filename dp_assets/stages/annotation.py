"""Answers to texts by the local model, an endpoint or people, for the assets that need them.

Endpoints and people see released rows only.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from dp_assets.alignment.settings import AnnotationSettings, EndpointSettings
from dp_assets.generation.settings import SamplingParameters
from dp_assets.privacy.labels import LABEL_METADATA, Label, Zone, zone
from dp_assets.progress import Advance, progress
from dp_assets.vocabulary import Partition
from resources.annotator import Annotator, NotReleased
from resources.models.loaders import LanguageModel
from resources.public_failure import PublicFailure

if TYPE_CHECKING:
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.alignment.endpoint import Asked, Connection, Endpoint
    from dp_assets.alignment.endpoint_limits import Budget


DROPPED_ANSWERS = "endpoint/dropped"


class NothingMade(PublicFailure):
    """An asset that others train on would be empty. This is a failure of the annotator, and no result."""

    def __init__(self, asset: str, dropped: Mapping[str, int]) -> None:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(dropped.items()))
        super().__init__(
            f"{asset} would be empty: nothing that was answered is of use ({reasons or 'all empty'}); see"
            " docs/guides/endpoint.md for what each reason means, change the settings, and materialize it again"
        )


def ready() -> None:
    """Do nothing: the `check` of an answerer that needs nothing from outside."""


@dataclass(frozen=True)
class Answerer:
    """Who answers: a public name, a function from texts to texts, and figures about the work after it is done.

    `check` raises if no answer can be requested. It is called where long work precedes the first request.
    """

    name: str
    answer: Callable[[list[str]], list[str]]
    figures: dict[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = ready


@dataclass(frozen=True)
class Annotated:
    """The rows of `annotated_instructions`, and public figures about how they were made."""

    rows: pl.DataFrame
    figures: dict[str, Any] = field(default_factory=dict)


def annotated_by_model(
    context: dg.AssetExecutionContext,
    annotator: Annotator,
    language_model: LanguageModel,
    settings: AnnotationSettings,
    filtered: pl.DataFrame,
) -> Annotated:
    """Return answers of the local model or of an endpoint.

    Args:
      context: the context of the asset that runs.
      annotator: says which endpoint is asked, if any.
      language_model: the local model, which answers if there is no endpoint.
      settings: how answers are sampled.
      filtered: the instructions to answer, released rows.

    Raises:
      NotReleased: an endpoint is chosen, and this asset lies in the private zone.
      NothingMade: no answer is of use.
    """
    from dp_assets.alignment.annotation import annotate

    with (
        progress("annotating", filtered.height, "instructions") as advance,
        answerer_of(context, annotator, language_model, settings, advance) as answerer,
    ):
        annotation = annotate(filtered, answerer.answer, annotator=answerer.name)
    if annotation.rows.is_empty():
        raise NothingMade(context.asset_key.to_user_string(), answerer.figures.get(DROPPED_ANSWERS, {}))
    return Annotated(annotation.rows, answerer.figures)


def annotated_by_people(
    context: dg.AssetExecutionContext, settings: AnnotationSettings, filtered: pl.DataFrame
) -> Annotated:
    """Return the answers of people to the tasks that were exported from these rows.

    Raises:
      NotReleased: this asset lies in the private zone, from where nothing can have been handed out.
      ExportError: the file with their answers is missing or cannot be read.
      NothingUsable: it holds no answer to any of these rows.
    """
    from dp_assets.alignment.handoff import take_responses

    path = handed_back(context, "annotation", settings.path)
    taken = take_responses(path, filtered, partition=context.partition_key, setting="annotation.path")
    return Annotated(taken.rows, taken.figures)


def handed_back(context: dg.AssetExecutionContext, group: str, path: Path | None) -> Path:
    """Return the file with finished annotations by people for this asset's partition.

    Raises:
      NotReleased: this asset lies in the private zone.
      ValueError: the profile names no file.
    """
    if zone(label_of(context), Partition.of(context).level) is not Zone.RELEASED:
        raise NotReleased(f"{group}.source 'human'")
    if path is None:
        raise ValueError(f"{group}.path is not set; it is where the finished annotations will be")
    return path


def label_of(context: dg.AssetExecutionContext) -> Label:
    """Return the privacy label of the asset that runs."""
    return Label(context.assets_def.metadata_by_key[context.asset_key][LABEL_METADATA])


@contextmanager
def answerer_of(
    context: dg.AssetExecutionContext,
    annotator: Annotator,
    language_model: LanguageModel,
    settings: AnnotationSettings,
    advance: Advance,
) -> Iterator[Answerer]:
    """Open the annotator that the profile chooses: the endpoint if there is one, else the local model.

    Args:
      context: the context of the asset that runs.
      annotator: says which endpoint is asked, if any.
      language_model: the local model.
      settings: how answers are sampled.
      advance: called with the number of texts answered.

    Raises:
      NotReleased: an endpoint is chosen, and this asset lies in the private zone.
    """
    if annotator.endpoint is None:
        yield local_answerer(language_model, settings, advance)
    else:
        with endpoint_answerer(context, annotator, sampling=settings.parameters, advance=advance) as answerer:
            yield answerer


def local_answerer(language_model: LanguageModel, settings: AnnotationSettings, advance: Advance) -> Answerer:
    """Return an answerer that samples from the local model."""
    from dp_assets.generation.sampling import generate_answers

    model, tokenizer = language_model.load()

    def answer(texts: list[str]) -> list[str]:
        return generate_answers(
            model,
            tokenizer,
            instructions=texts,
            sampling=settings.parameters,
            batch_size=settings.batch_size,
            advance=advance,
        )

    return Answerer(language_model.public_name, answer)


@contextmanager
def endpoint_answerer(
    context: dg.AssetExecutionContext,
    annotator: Annotator,
    *,
    sampling: SamplingParameters,
    advance: Advance,
    system: str | None = None,
    is_readable: Callable[[str], bool] = bool,
) -> Iterator[Answerer]:
    """Open an answerer that asks an endpoint and stores the answers in a file of this asset and partition.

    The file is locked until the block ends.

    Args:
      context: the context of the asset that runs.
      annotator: the endpoint, and the folder of its answers.
      sampling: how an answer is sampled.
      advance: called with the number of texts answered.
      system: the system message, if any.
      is_readable: returns whether an answer can be used.

    Raises:
      NotReleased: this asset lies in the private zone.
      AnswersBusy: another run is answering for the same asset and partition.
    """
    from dp_assets.alignment.endpoint import ask, check_endpoint

    settings = annotator.admitted(label_of(context), Partition.of(context).level)
    path = annotator.answers_file(context.asset_key.to_user_string(), context.partition_key)
    with connected(annotator, settings, path, sampling=sampling, system=system) as connection:
        figures: dict[str, Any] = {}

        def answer(texts: list[str]) -> list[str]:
            asked = ask(texts, connection, is_readable=is_readable, advance=advance)
            figures.update(_figures(asked, connection.store, connection.budget, settings))
            return asked.texts

        yield Answerer(settings.model, answer, figures, check=partial(check_endpoint, connection))


@contextmanager
def connected(
    annotator: Annotator, settings: EndpointSettings, path: Path, *, sampling: SamplingParameters, system: str | None
) -> "Iterator[Connection]":
    """Open a connection to an endpoint. Its answers are stored in `path`, which is locked until the block ends.

    Args:
      annotator: gives the key, and the name of the settings in messages.
      settings: the endpoint, its rate limits, prices and budgets.
      path: the file of the answers.
      sampling: how an answer is sampled.
      system: the system message, if any.

    Raises:
      AnswersBusy: another run holds the file.
    """
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.alignment.endpoint import Connection
    from dp_assets.alignment.endpoint_limits import Budget, RateLimit

    endpoint = endpoint_of(annotator, settings, sampling=sampling, system=system)
    rate = RateLimit(requests=settings.requests_per_minute, tokens=settings.tokens_per_minute)
    with AnswersStore.opened(path) as store:
        budget = Budget(
            group=annotator.group,
            tokens=settings.budget_tokens,
            money=settings.budget_money,
            input_price=settings.input_price or 0.0,
            output_price=settings.output_price or 0.0,
            spent=store.usage,
        )
        yield Connection(endpoint, store, rate, budget)


def endpoint_of(
    annotator: Annotator, settings: EndpointSettings, *, sampling: SamplingParameters, system: str | None
) -> "Endpoint":
    """Return an annotator's endpoint with its settings, sampling parameters, key and system message."""
    from dp_assets.alignment.endpoint import Endpoint

    return Endpoint(annotator.group, settings, sampling, annotator.api_key, system)


def _figures(asked: "Asked", store: "AnswersStore", budget: "Budget", settings: EndpointSettings) -> dict[str, Any]:
    """Return the number of questions, their outcomes and their cost, in this run and in all runs for the same table."""
    figures = {
        "endpoint/model": settings.model,
        "endpoint/questions": len(asked.texts),
        "endpoint/reused": asked.reused,
        DROPPED_ANSWERS: dict(asked.dropped),
        "endpoint/answers_paid": store.num_answers,
        "endpoint/input_tokens": store.usage.input_tokens,
        "endpoint/output_tokens": store.usage.output_tokens,
        "endpoint/tokens_of_this_run": store.new_usage.total,
    }
    if settings.input_price is None:
        return figures
    costs = {"endpoint/cost": budget.cost(store.usage), "endpoint/cost_of_this_run": budget.cost(store.new_usage)}
    return figures | costs
