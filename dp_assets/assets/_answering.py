"""What assets share that have texts answered: by the local model, or by an endpoint that sees released rows only."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from dp_assets.partitions import Partition
from dp_assets.privacy.labels import LABEL_METADATA, Label
from dp_assets.progress import Advance
from resources.annotator import Annotator
from resources.models import LanguageModel
from resources.profile import AnnotationSettings, EndpointSettings

if TYPE_CHECKING:
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.alignment.endpoint import Asked
    from dp_assets.alignment.endpoint_limits import Budget


@dataclass(frozen=True)
class Answerer:
    """Who answers: a public name, a function from texts to texts, and figures about the work once it is done."""

    name: str
    answer: Callable[[list[str]], list[str]]
    figures: dict[str, Any] = field(default_factory=dict)


@contextmanager
def answerer_of(
    context: dg.AssetExecutionContext,
    annotator: Annotator,
    language_model: LanguageModel,
    settings: AnnotationSettings,
    advance: Advance,
) -> Iterator[Answerer]:
    """The annotator that the profile chooses: the endpoint if there is one, else the local model.

    Raises:
      NotReleased: an endpoint is chosen, and this asset lies in the private zone.
    """
    if annotator.endpoint is None:
        yield local_answerer(language_model, settings, advance)
    else:
        with endpoint_answerer(context, annotator, sampling=settings.sampling(), advance=advance) as answerer:
            yield answerer


def local_answerer(language_model: LanguageModel, settings: AnnotationSettings, advance: Advance) -> Answerer:
    """Answers of the local model."""
    from dp_assets.generation.sampling import generate_answers

    model, tokenizer = language_model.load()

    def answer(texts: list[str]) -> list[str]:
        sampling = settings.local_sampling()
        return generate_answers(model, tokenizer, instructions=texts, advance=advance, **sampling)

    return Answerer(language_model.public_name, answer)


@contextmanager
def endpoint_answerer(
    context: dg.AssetExecutionContext,
    annotator: Annotator,
    *,
    sampling: Mapping[str, Any],
    advance: Advance,
    system: str | None = None,
    is_readable: Callable[[str], bool] = bool,
) -> Iterator[Answerer]:
    """Answers of an endpoint, kept in a file of this asset and partition, which is held until the block ends.

    Raises:
      NotReleased: this asset lies in the private zone.
      AnswersBusy: another run is answering for the same asset and partition.
    """
    from dp_assets.alignment.answers_store import AnswersStore
    from dp_assets.alignment.endpoint import Endpoint, ask
    from dp_assets.alignment.endpoint_limits import Budget, RateLimit

    label = Label(context.assets_def.metadata_by_key[context.asset_key][LABEL_METADATA])
    settings = annotator.admitted(label, Partition.of(context).level)
    endpoint = Endpoint(
        group=annotator.group,
        parameters=settings.parameters(**sampling),
        max_new_tokens=sampling["max_new_tokens"],
        api_key=annotator.api_key,
        system=system,
        **settings.connection(),
    )
    rate = RateLimit(requests=settings.requests_per_minute, tokens=settings.tokens_per_minute)
    path = annotator.answers_file(context.asset_key.to_user_string(), context.partition_key)
    with AnswersStore.opened(path) as store:
        budget = Budget(group=annotator.group, spent=store.usage, **settings.limits())
        asking = partial(ask, endpoint=endpoint, store=store, rate=rate, budget=budget, is_readable=is_readable)
        figures: dict[str, Any] = {}

        def answer(texts: list[str]) -> list[str]:
            asked = asking(texts, advance=advance)
            figures.update(_figures(asked, store, budget, settings))
            return asked.texts

        yield Answerer(settings.model, answer, figures)


def _figures(asked: "Asked", store: "AnswersStore", budget: "Budget", settings: EndpointSettings) -> dict[str, Any]:
    """What was asked and what it cost, in this run and in all runs for the same table."""
    figures = {
        "endpoint/model": settings.model,
        "endpoint/questions": len(asked.texts),
        "endpoint/reused": asked.reused,
        "endpoint/dropped": dict(asked.dropped),
        "endpoint/answers_paid": store.num_answers,
        "endpoint/input_tokens": store.usage.input_tokens,
        "endpoint/output_tokens": store.usage.output_tokens,
        "endpoint/tokens_of_this_run": store.new_usage.total,
    }
    if settings.input_price is None:
        return figures
    costs = {"endpoint/cost": budget.cost(store.usage), "endpoint/cost_of_this_run": budget.cost(store.new_usage)}
    return figures | costs
