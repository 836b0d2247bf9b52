"""One `ask` of a fake endpoint with the patience of a test, in this process or in one of its own.

python -m tests.alignment.asking URL ANSWERS_FILE NUMBER_OF_QUESTIONS
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dp_assets.alignment.answers_store import AnswersStore
from dp_assets.alignment.endpoint import Asked, Connection, Endpoint, ask
from dp_assets.alignment.endpoint_limits import Budget, RateLimit
from dp_assets.alignment.settings import EndpointSettings
from dp_assets.cli.quiet import let_interrupts_end_waits
from dp_assets.generation.settings import SamplingParameters
from tests.alignment.fake_endpoint import MODEL

SAMPLING = SamplingParameters(max_new_tokens=20, temperature=0.5, top_p=1.0, seed=3)
PARAMETERS = {"temperature": 0.5, "max_tokens": 20, "seed": 3}


def questions(number: int) -> list[str]:
    return [f"what is the meaning of number {index}?" for index in range(number)]


def endpoint_at(url: str, **changes: Any) -> Endpoint:
    settings: dict[str, Any] = {
        "base_url": url,
        "model": MODEL,
        "timeout_seconds": 10.0,
        "attempts": 12,
        "backoff_seconds": 0.004,
        "concurrency": 8,
        "omitted": ["top_p"],
    }
    how = {name: changes.pop(name) for name in ("api_key", "sampling", "system") if name in changes}
    asked_how: dict[str, Any] = {"sampling": SAMPLING, "api_key": lambda: "none"} | how
    return Endpoint(group="annotation.endpoint", settings=EndpointSettings(**(settings | changes)), **asked_how)


def asked(
    texts: Sequence[str],
    url: str,
    path: Path,
    *,
    rate: RateLimit | None = None,
    budget_tokens: int | None = None,
    budget_money: float | None = None,
    is_readable: Callable[[str], bool] = bool,
    advance: Callable[[int], None] = lambda _: None,
    **changes: Any,
) -> Asked:
    endpoint = endpoint_at(url, **changes)
    with AnswersStore.opened(path) as store:
        budget = Budget(
            group=endpoint.group,
            tokens=budget_tokens,
            money=budget_money,
            input_price=1.0,
            output_price=10.0,
            spent=store.usage,
        )
        return ask(
            texts,
            Connection(endpoint, store, rate or RateLimit(requests=None, tokens=None), budget),
            is_readable=is_readable,
            advance=advance,
        )


if __name__ == "__main__":
    let_interrupts_end_waits()  # as the command does
    address, answers_file, number = sys.argv[1:]
    asked(questions(int(number)), address, Path(answers_file), concurrency=4)
