"""Requests of many answers from an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp.

Guarantees:

- An answer that arrived is saved before anything else happens. It is never requested again, in this run or a later one.
- Before the first question, the list of models proves that a server answers, and a probe with a constant text proves
  address, key, model and parameters. The probe is repeated if several questions in a row get no answer. This
  distinguishes a question that no server answers from a server that is down.
- After a stop (budget, error, interrupt) no request is sent. Requests in flight are awaited and saved.
- Results are in the order of the questions, whatever the order of arrival.
- Messages name the setting and the remedy. They quote neither the key nor the text of the server.

Failures:

- A request without an answer is repeated after a wait that doubles each time, with jitter, and that is never shorter
  than the server's `Retry-After`. It costs nothing. Such failures are: no connection, a timeout, HTTP 408, 409, 425,
  429, 5xx, and HTTP 200 without a completion (an error inside it, a proxy's page, half a reply).
- A useless answer (cut off, empty, not readable) is requested once more. A refusal is not.
- Another HTTP error drops its question if a probe shows that other questions are answered. Otherwise it ends the run.
- A question without a usable answer is counted by its reason.

Not avoidable: a request that was computed but whose answer never arrived (killed process, lost connection) may be
billed again. Its repetition carries the same `Idempotency-Key`, so a server that honors the header bills it once.
"""

import hashlib
import json
import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import openai

from dp_assets.alignment.answers_store import FINAL, Answer, AnswersStore, Outcome, Usage
from dp_assets.alignment.endpoint_limits import Budget, BudgetReached, RateLimit, Stopped, most_usage
from dp_assets.alignment.endpoint_replies import (
    NO_CREDIT,
    STATUS_OF_NO_CREDIT,
    NoCompletion,
    read_completion,
    retry_after,
)
from dp_assets.alignment.settings import EndpointSettings
from dp_assets.generation.settings import SamplingParameters
from dp_assets.privacy.errors import PublicError

PROBE_TEXT = "Reply with the one word: ready"
NO_ANSWER = "no_answer"
ROUNDS = 2
"""The largest number of times that a question without any answer is asked again, while others are answered."""

MOST_ANSWERS = 2
"""The largest number of useless answers to one question that are paid for."""

DOUBT_AFTER = 5
"""The number of consecutive questions without an answer after which the endpoint is probed again."""

LISTINGS = 3
"""The number of requests for the list of models before the endpoint counts as not answering."""

LONGEST_BACKOFF, LONGEST_RETRY_AFTER, LONGEST_CONNECT, LONGEST_LISTING = 60.0, 600.0, 5.0, 10.0
REPEATABLE, REJECTING, UNKNOWN, FORBIDDEN_BY_LAW = (408, 409, 425, 429), (400, 413, 422), 404, 451
WRONG_KEY, UNAUTHORISED = 401, (401, 403)
SENT_HEADERS = frozenset(
    [
        "host",
        "connection",
        "accept",
        "accept-encoding",
        "user-agent",
        "content-type",
        "content-length",
        "authorization",
        "idempotency-key",
        "x-stainless-raw-response",
    ]
)
"""All that a request carries; what the library takes from variables such as OPENAI_ORG_ID is left out."""
SHOWN_MODELS = 10
ADDRESS_HINT = "the address often ends in /v1"


class EndpointError(PublicError, RuntimeError):
    """The endpoint cannot be used as configured, or the run has to stop. The answers so far are saved."""


class _NoAnswer(Exception):
    """A request brought no answer. `seconds` is how long the server asks to wait, or None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _NotCompleted(_NoAnswer):
    """HTTP 200 with neither a completion nor an error inside: the server may be no such endpoint at all."""


class _Refused(Exception):
    """An HTTP error that may concern this question only."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def _unreached(error: openai.APIConnectionError) -> _NoAnswer:
    return _NoAnswer("timed out" if isinstance(error, openai.APITimeoutError) else "no connection")


@dataclass(frozen=True)
class Endpoint:
    """The address, key, model and parameters of requests.

    - `group` names the settings in messages.
    - The seed of `sampling` is increased if a useless answer is requested again.
    - `api_key` is called only if there is something to request.
    """

    group: str
    settings: EndpointSettings
    sampling: SamplingParameters
    api_key: Callable[[], str] = field(repr=False)
    system: str | None = None

    @property
    def model(self) -> str:
        """The name of the model at the server."""
        return self.settings.model

    @property
    def parameters(self) -> dict[str, Any]:
        """The other fields of a request's body: temperature, most new tokens under the name the server uses, ..."""
        return self.settings.parameters(self.sampling)

    def key(self, text: str) -> str:
        """Return a hash of everything that decides an answer: instruction, system message, model and parameters."""
        content = {"instruction": text, "system": self.system, "model": self.model, "parameters": self.parameters}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def body(self, text: str, number: int) -> dict[str, Any]:
        """Return the body of a request. `number` is the index of its answer among those to the same text, from 0."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        parameters = self.parameters
        if "seed" in parameters:
            parameters["seed"] += number
        messages = [*system, {"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "extra_body": parameters}

    def client(self) -> openai.OpenAI:
        """Return a client that repeats no request and sends only the headers in `SENT_HEADERS`.

        Requests are repeated outside the client, because each must be counted.

        Raises:
          EndpointError: the environment names a proxy or certificates that cannot be used.
        """
        key = self.api_key()
        seconds = self.settings.timeout_seconds
        timeout = openai.Timeout(seconds, connect=min(LONGEST_CONNECT, seconds))
        try:
            return openai.OpenAI(
                api_key=key,
                base_url=self.settings.base_url,
                timeout=timeout,
                max_retries=0,
                default_headers={"Authorization": f"Bearer {key}"},  # takes precedence over OPENAI_CUSTOM_HEADERS
                http_client=openai.DefaultHttpxClient(
                    event_hooks={"request": [_without_other_headers]}, timeout=timeout
                ),
            )
        except (ImportError, OSError, ValueError, openai.OpenAIError) as error:
            raise EndpointError(
                f"{self.group} cannot be asked with the proxy and the certificates of this environment"
                f" ({type(error).__name__}); check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY (a SOCKS proxy needs the package"
                " socksio), SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None

    def require_served(self) -> None:
        """Require that a server answers at the address. This costs nothing and does not check the model.

        Raises:
          EndpointError: no server answers.
        """
        with self.client() as client:
            try:
                client.models.list(timeout=min(LONGEST_LISTING, self.settings.timeout_seconds))
            except openai.APIConnectionError as error:
                problem = _unreached(error)
            except (openai.OpenAIError, ValueError, TypeError, AttributeError):
                return  # a server need not have a list
            else:
                return
        raise EndpointError(
            f"{self.group}.base_url {self.settings.base_url!r} gives no answer ({problem}); start the server or correct"
            f" the address: {ADDRESS_HINT}"
        )


def _without_other_headers(request: Any) -> None:
    for name in [name for name in request.headers if name.lower() not in SENT_HEADERS]:
        del request.headers[name]


@dataclass(frozen=True)
class Connection:
    """An endpoint, the store of its answers, its rate limit and its budget."""

    endpoint: Endpoint
    store: AnswersStore
    rate: RateLimit
    budget: Budget


@dataclass(frozen=True)
class Asked:
    """The answers to questions.

    - `texts` holds an answer for each question, in order, empty if there is none.
    - `dropped` counts the questions without an answer, by reason.
    - `reused` is the number of questions that earlier runs had settled.
    """

    texts: list[str]
    dropped: Counter[str]
    reused: int


def ask(
    texts: Sequence[str],
    connection: Connection,
    *,
    is_readable: Callable[[str], bool] = bool,
    advance: Callable[[int], None] = lambda _: None,
) -> Asked:
    """Request an answer to each text. Equal texts are requested once.

    `is_readable` returns whether an answer can be used. `advance` is called with the number of texts settled.

    Raises:
      EndpointError: the probe failed, the endpoint stopped answering, or the budget is reached. Another run continues.
      OSError: an answer could not be saved.
    """
    endpoint, store = connection.endpoint, connection.store
    keys = [endpoint.key(text) for text in texts]
    questions = {key: text for key, text in zip(keys, texts, strict=True) if not _is_settled(store, key)}
    reused = sum(key not in questions for key in keys)
    advance(reused)
    if questions:
        counted = Counter(keys)
        with endpoint.client() as client:
            asking = _Asking(connection, client, is_readable, settled=lambda key: advance(counted[key]))
            try:
                asking.settle_all(questions)
            except BudgetReached as reached:
                settled = sum(_is_settled(store, key) for key in keys)
                raise EndpointError(
                    f"{reached}; the next answer might exceed it. {settled} of {len(keys)} answers are saved. Raise the"
                    " limit and run again: nothing is paid for twice"
                ) from None
    reasons = [_reason(store, key) for key in keys]
    return Asked([store.text(key) for key in keys], Counter(reason for reason in reasons if reason), reused)


def check_endpoint(connection: Connection) -> None:
    """Require that an endpoint can be used: at no cost if it lists the model, otherwise by one probe.

    A list without the model proves nothing, because servers know models by several names or accept any name. Some
    servers have no list.

    Raises:
      EndpointError: no server answers, or key, model or address are wrong, or the budget is spent.
    """
    with connection.endpoint.client() as client:
        asking = _Asking(connection, client, bool, settled=lambda _: None)
        try:
            asking.check()
        except BudgetReached as reached:
            raise EndpointError(f"{reached}; raise the limit and run again") from None


def _is_settled(store: AnswersStore, key: str) -> bool:
    return store.last_outcome(key) in FINAL or store.tries(key) >= MOST_ANSWERS


def _reason(store: AnswersStore, key: str) -> str | None:
    """Return why there is no answer, or None if there is one."""
    outcome = store.last_outcome(key)
    return None if outcome is Outcome.ANSWERED else str(outcome or NO_ANSWER)


class _Asking:
    """The threads of one call of `ask`, and the state that they share."""

    def __init__(
        self,
        connection: Connection,
        client: openai.OpenAI,
        is_readable: Callable[[str], bool],
        *,
        settled: Callable[[str], None],
    ) -> None:
        self._endpoint, self._store = connection.endpoint, connection.store
        self._rate, self._budget = connection.rate, connection.budget
        self._client, self._is_readable, self._settled = client, is_readable, settled
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._jitter, self._fruitless = random.Random(), 0

    def check(self) -> None:
        """Probe the endpoint unless it lists the model.

        Raises:
          EndpointError: it cannot be used.
          BudgetReached: the probe might exceed the budget.
        """
        if self._endpoint.model not in self._listed():
            self._probe()

    def settle_all(self, questions: Mapping[str, str]) -> None:
        """Request answers until each question is answered, dropped, or proven not to be answered by a working endpoint.

        Raises:
          EndpointError: the endpoint cannot be used, or stopped answering.
          BudgetReached: the next request might exceed the budget.
        """
        self._listed()
        for _ in range(ROUNDS):
            self._probe()
            self._settle_in_threads(questions)
            questions = {key: text for key, text in questions.items() if not _is_settled(self._store, key)}
            if not questions:
                return
        self._probe()

    def _probe(self) -> None:
        """Request an answer to a constant question with the same parameters. One useless answer is tolerated.

        Raises:
          EndpointError: there is no answer, or none in the form of a chat completion.
        """
        key = f"probe-{secrets.token_hex(8)}"
        for number in range(MOST_ANSWERS):
            try:
                answer = self._answer(key, PROBE_TEXT, number, not_completed=MOST_ANSWERS)
            except _Refused as refused:
                raise self._refused(refused.status) from None
            except _NotCompleted:
                raise self._no_chat() from None
            except _NoAnswer as failure:
                raise self._unanswered(failure) from None
            self._save(Answer(key, Outcome.PROBE, "", answer.usage))
            if answer.outcome is not Outcome.MALFORMED:
                return
        raise self._no_chat()

    def _settle_in_threads(self, questions: Mapping[str, str]) -> None:
        waiting = iter(questions.items())
        with ThreadPoolExecutor(self._endpoint.settings.concurrency, thread_name_prefix="endpoint") as pool:
            workers = [pool.submit(self._work, waiting) for _ in range(self._endpoint.settings.concurrency)]
            try:
                wait(workers, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._stopping.set()
                raise
        for worker in workers:
            worker.result()

    def _work(self, waiting: Iterator[tuple[str, str]]) -> None:
        try:
            while not self._stopping.is_set():
                with self._lock:
                    question = next(waiting, None)
                if question is None:
                    return
                self._settle(*question)
        except Stopped:
            return
        except BaseException:
            self._stopping.set()
            raise

    def _settle(self, key: str, text: str) -> None:
        """Request answers until one is usable, enough were paid for, or a request brings none at all."""
        while not _is_settled(self._store, key):
            try:
                answer = self._answer(key, text, self._store.tries(key), not_completed=self._endpoint.settings.attempts)
            except _NoAnswer:
                return self._note_fruitless()
            except _Refused:
                self._probe()
                answer = Answer(key, Outcome.REJECTED, "", Usage())
            self._save(answer)
        with self._lock:
            self._settled(key)

    def _answer(self, key: str, text: str, number: int, *, not_completed: int) -> Answer:
        """Return the answer with this number, after as many requests as it takes.

        At most `not_completed` requests may bring neither a completion nor an error.

        Raises:
          _NoAnswer: no request brought an answer.
          _Refused: the server rejects the request.
        """
        attempt = 1
        while True:
            try:
                return self._request(key, text, number)
            except _NoAnswer as failure:
                if attempt >= (
                    not_completed if isinstance(failure, _NotCompleted) else self._endpoint.settings.attempts
                ):
                    raise
                self._pause(attempt, failure.seconds)
            attempt += 1

    def _pause(self, attempt: int, asked_for: float | None) -> None:
        """Wait as long as the server asked for, plus a backoff with jitter (half to all of it)."""
        backoff = min(LONGEST_BACKOFF, self._endpoint.settings.backoff_seconds * 2 ** (attempt - 1))
        if asked_for is not None:
            self._rate.hold(asked_for)
        self._stopping.wait((asked_for or 0.0) + backoff * self._jitter.uniform(0.5, 1.0))

    def _request(self, key: str, text: str, number: int) -> Answer:
        """Send one request within budget and rate limit, and return its answer.

        Raises:
          _NoAnswer: it brought no answer, but another request may.
          _Refused: the server rejects the request.
          EndpointError: no other request will bring an answer either.
        """
        most = most_usage(self._endpoint.system, text, max_new_tokens=self._endpoint.sampling.max_new_tokens)
        with self._budget.slot(most, self._stopping) as paid, self._rate.slot(most, self._stopping) as counted:
            answer = self._send(key, text, number, most)
            paid.usage = counted.usage = answer.usage
            return answer

    def _send(self, key: str, text: str, number: int, most: Usage) -> Answer:
        try:
            response = self._client.chat.completions.with_raw_response.create(
                extra_headers={"Idempotency-Key": f"{key}-{number}"}, **self._endpoint.body(text, number)
            )
        except openai.APIStatusError as error:
            no_credit = NO_CREDIT.intersection([str(error.code), str(error.type)])
            status = STATUS_OF_NO_CREDIT if no_credit else error.status_code
            problem = self._understood(status, retry_after(error.response.headers))
        except openai.APIConnectionError as error:
            problem = _unreached(error)
        else:
            try:
                return self._read(key, response.text, most)
            except NoCompletion as reply:
                problem = self._understood_reply(reply.status, retry_after(response.headers))
        # Raised outside the handlers, so that the error does not carry the request and the text of the server.
        raise problem

    def _read(self, key: str, body: str, most: Usage) -> Answer:
        """Return the answer in a body. Usage that the server does not report is counted as its upper bound.

        Raises:
          NoCompletion: there is no completion, so nothing is counted.
        """
        outcome, text, usage = read_completion(body)
        if outcome is Outcome.ANSWERED and not self._is_readable(text):
            outcome, text = Outcome.UNREADABLE, ""
        return Answer(key, outcome, text, usage or most)

    def _understood_reply(self, status: int | None, seconds: float | None) -> Exception:
        """Return the exception for a reply without a completion: that of the HTTP error inside it, if there is one."""
        return _NotCompleted("no chat completion", seconds) if status is None else self._understood(status, seconds)

    def _understood(self, status: int, seconds: float | None) -> Exception:
        """Return the exception for an HTTP error, which decides how later requests proceed."""
        group = self._endpoint.group
        if status == STATUS_OF_NO_CREDIT:
            return EndpointError(f"the account behind {group}.api_key_variable has no credit left; add some, run again")
        if status in REPEATABLE or status >= 500:
            return self._repeatable(status, seconds)
        if status == WRONG_KEY:
            return self._refused(status)
        return _Refused(status)

    def _refused(self, status: int) -> EndpointError:
        """Return the exception for an HTTP error that every request brings."""
        group, where = self._endpoint.group, self._where
        if status in REJECTING:
            return EndpointError(
                f"{where} rejects the request (HTTP {status}); check {group}.model, and name what the model does not"
                " take with `omitted` or `max_tokens_name`"
            )
        if status in UNAUTHORISED:
            return EndpointError(
                f"the endpoint does not accept the key (HTTP {status}); check {group}.api_key_variable, and that the"
                " variable it names holds a key which may use this model"
            )
        if status == UNKNOWN:
            return EndpointError(
                f"{group}.model {self._endpoint.model!r} is unknown at {where} (HTTP {status}); {self._offer()}"
            )
        if status == FORBIDDEN_BY_LAW:
            return EndpointError(f"{where} may not serve {group}.model here (HTTP {status}); choose another one")
        return EndpointError(f"{where} answers HTTP {status}; correct the address: {ADDRESS_HINT}")

    def _repeatable(self, status: int, seconds: float | None) -> Exception:
        if seconds is not None and seconds > LONGEST_RETRY_AFTER:
            return EndpointError(
                f"the endpoint of {self._endpoint.group} asks to be left alone for {seconds:.0f} seconds; what was"
                " answered is saved, so run again then"
            )
        return _NoAnswer(f"HTTP {status}", seconds)

    def _offer(self) -> str:
        """Return words that name the models which the server lists."""
        models = self._listed()[:SHOWN_MODELS]
        return f"it offers {', '.join(models)}" if models else f"check both: {ADDRESS_HINT}"

    def _listed(self) -> list[str]:
        """Return the models that the server lists; none if it has no list.

        Raises:
          EndpointError: no server answers.
        """
        seconds = min(LONGEST_LISTING, self._endpoint.settings.timeout_seconds)
        for attempt in range(LISTINGS):
            try:
                return [model.id for model in self._client.models.list(timeout=seconds)]
            except openai.APIConnectionError as error:
                problem = _unreached(error)
                self._stopping.wait(self._endpoint.settings.backoff_seconds * attempt)
            except (openai.OpenAIError, ValueError, TypeError, AttributeError):
                return []
        raise self._unanswered(problem)

    @property
    def _where(self) -> str:
        return f"{self._endpoint.group}.base_url {self._endpoint.settings.base_url!r}"

    def _no_chat(self) -> EndpointError:
        return EndpointError(
            f"{self._where} does not answer with a chat completion; correct the address: {ADDRESS_HINT}. If it answered"
            " before, the server or a proxy is down: what was answered is saved, so run again then"
        )

    def _unanswered(self, failure: _NoAnswer) -> EndpointError:
        return EndpointError(
            f"{self._where} gives no answer ({failure}); start the server or correct the address: {ADDRESS_HINT}."
            " What was answered before is saved, so run again then"
        )

    def _save(self, answer: Answer) -> None:
        with self._lock:
            self._store.add(answer)
            self._fruitless = 0

    def _note_fruitless(self) -> None:
        """Count a question without an answer, and probe the endpoint after too many in a row.

        Raises:
          EndpointError: the endpoint does not answer.
        """
        with self._lock:
            self._fruitless += 1
            in_doubt = self._fruitless >= DOUBT_AFTER
            if in_doubt:
                self._fruitless = 0
        if in_doubt:
            self._probe()
