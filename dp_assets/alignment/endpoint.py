"""Asking an OpenAI-compatible endpoint many questions: OpenAI, vLLM, Ollama, llama.cpp.

What holds:
- An answer that arrived is saved before anything else happens and never asked for again, in this run or a later one.
- Before the first question the list of models proves that somebody answers at all, and a probe with a constant text
  proves address, key, model and parameters. It is repeated when several questions in a row get no answer, so that one
  which no server answers is told from a server that is down.
- A stop (budget, error, interrupt) sends nothing more; what is under way is waited for and saved.
- Results come in the order of the questions, whatever order they arrived in.
- Messages name the setting and the remedy and quote neither the key nor what the server wrote.

A request without an answer is repeated after a wait that doubles each time, with jitter, and never less than the
server's `Retry-After`; nothing is booked for it. That is no connection, a timeout, HTTP 408, 409, 425, 429, 5xx, and
HTTP 200 without a completion: an error inside it, a proxy's page, half a reply. A useless answer (cut off, empty, not
readable) is asked for once more; a refusal is not. Another HTTP error drops its question, if a probe shows that others
are answered; else it ends the run. A question that gets no answer of use is counted by its reason.

What cannot be helped: a request that was computed but whose answer never arrived (killed process, lost connection) may
be billed again. Its repetition carries the same `Idempotency-Key`, so a server that honors the header bills it once.
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
"""How often a question is taken up that got no answer at all while others did."""

MOST_ANSWERS = 2
"""How many useless answers to one question are paid for."""

DOUBT_AFTER = 5
"""Questions in a row without any answer, after which the endpoint is probed again."""

LISTINGS = 3
"""How often the list of models is asked for before nobody is said to answer."""

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
    """The endpoint cannot be used as it is configured, or the run has to stop; what was answered is saved."""


class _NoAnswer(Exception):
    """A request brought no answer; `seconds` is how long the server wants to be left alone, if it said so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _NotCompleted(_NoAnswer):
    """HTTP 200 with neither a completion nor an error inside: who answers may be no such server at all."""


class _Refused(Exception):
    """An HTTP error that may be about this question alone."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def _unreached(error: openai.APIConnectionError) -> _NoAnswer:
    return _NoAnswer("timed out" if isinstance(error, openai.APITimeoutError) else "no connection")


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    `group` names the settings in messages. The seed of `sampling` is counted up when a useless answer is asked for
    again. `api_key` is called only if there is something to ask.
    """

    group: str
    settings: EndpointSettings
    sampling: SamplingParameters
    api_key: Callable[[], str] = field(repr=False)
    system: str | None = None

    @property
    def model(self) -> str:
        """The model's name at the server."""
        return self.settings.model

    @property
    def parameters(self) -> dict[str, Any]:
        """The further fields of a request's body: temperature, the most new tokens under the server's own name, ..."""
        return self.settings.parameters(self.sampling)

    def key(self, text: str) -> str:
        """A hash of all that decides an answer: instruction, system message, model and parameters."""
        content = {"instruction": text, "system": self.system, "model": self.model, "parameters": self.parameters}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def body(self, text: str, number: int) -> dict[str, Any]:
        """The request for the answer with this number, counted from 0."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        parameters = self.parameters
        if "seed" in parameters:
            parameters["seed"] += number
        messages = [*system, {"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "extra_body": parameters}

    def client(self) -> openai.OpenAI:
        """A client that repeats no request and sends no more than this endpoint is meant to see.

        Every request has to be counted, so the repeating is done outside it.

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
                default_headers={"Authorization": f"Bearer {key}"},  # before what OPENAI_CUSTOM_HEADERS may hold
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
        """Find out whether anybody answers at the address. Costs nothing; whether the model is there is not asked.

        Raises:
          EndpointError: nobody does.
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
    """An endpoint, where its answers are kept, and how fast and how much it may be asked."""

    endpoint: Endpoint
    store: AnswersStore
    rate: RateLimit
    budget: Budget


@dataclass(frozen=True)
class Asked:
    """`texts` holds an answer for each question, in order, empty where there is none; `dropped` counts those by reason.

    `reused` is how many questions had been settled by earlier runs.
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
    """Ask for an answer to each text. The same text is asked once.

    `is_readable` says whether an answer can be used; `advance` is called with the number of texts settled.

    Raises:
      EndpointError: the probe failed, the endpoint stopped answering, or the budget is reached. Running again goes on.
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
    """Find out whether an endpoint can be asked, at no cost where it lists the model, else by one probe.

    A list without the model proves nothing, because servers know models by several names or serve any name; a server
    need not have a list either.

    Raises:
      EndpointError: nobody answers, or key, model or address are wrong, or the budget is spent.
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
    """Why there is no answer; None if there is one."""
    outcome = store.last_outcome(key)
    return None if outcome is Outcome.ANSWERED else str(outcome or NO_ANSWER)


class _Asking:
    """The threads of one `ask` and what they share."""

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
        """Probe unless the endpoint lists the model.

        Raises:
          EndpointError: it cannot be used.
          BudgetReached: the probe might exceed the budget.
        """
        if self._endpoint.model not in self._listed():
            self._probe()

    def settle_all(self, questions: Mapping[str, str]) -> None:
        """Ask until each question is answered, dropped, or proven to be one that a sound endpoint does not answer.

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
        """Ask a constant question with the same parameters; one useless answer is forgiven.

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
        """Ask until an answer is of use or enough were paid for, or there is none at all."""
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
        """The answer with this number, however many requests it takes.

        At most `not_completed` of them may bring neither a completion nor an error.

        Raises:
          _NoAnswer: there was none to any request.
          _Refused: the server wants no such request.
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
        """Wait as long as the server asked for, and then for a backoff of which half is left to chance."""
        backoff = min(LONGEST_BACKOFF, self._endpoint.settings.backoff_seconds * 2 ** (attempt - 1))
        if asked_for is not None:
            self._rate.hold(asked_for)
        self._stopping.wait((asked_for or 0.0) + backoff * self._jitter.uniform(0.5, 1.0))

    def _request(self, key: str, text: str, number: int) -> Answer:
        """One request within budget and rate.

        Raises:
          _NoAnswer: it brought no answer; another one may.
          _Refused: the server wants no such request.
          EndpointError: no other one will either.
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
        # Raised out here, where the request and what the server wrote are no part of the error any more.
        raise problem

    def _read(self, key: str, body: str, most: Usage) -> Answer:
        """An answer. Usage that the server does not report is counted as the most that it can be.

        Raises:
          NoCompletion: there is no completion, so nothing counts.
        """
        outcome, text, usage = read_completion(body)
        if outcome is Outcome.ANSWERED and not self._is_readable(text):
            outcome, text = Outcome.UNREADABLE, ""
        return Answer(key, outcome, text, usage or most)

    def _understood_reply(self, status: int | None, seconds: float | None) -> Exception:
        """What a reply without a completion means: the same as the HTTP error inside it, if there is one."""
        return _NotCompleted("no chat completion", seconds) if status is None else self._understood(status, seconds)

    def _understood(self, status: int, seconds: float | None) -> Exception:
        """What an HTTP error means for the requests to come."""
        group = self._endpoint.group
        if status == STATUS_OF_NO_CREDIT:
            return EndpointError(f"the account behind {group}.api_key_variable has no credit left; add some, run again")
        if status in REPEATABLE or status >= 500:
            return self._repeatable(status, seconds)
        if status == WRONG_KEY:
            return self._refused(status)
        return _Refused(status)

    def _refused(self, status: int) -> EndpointError:
        """What an HTTP error means if every request brings it."""
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
        """Which models there are, where the server tells."""
        models = self._listed()[:SHOWN_MODELS]
        return f"it offers {', '.join(models)}" if models else f"check both: {ADDRESS_HINT}"

    def _listed(self) -> list[str]:
        """The models that the server lists; none if it has no list.

        Raises:
          EndpointError: nobody answers.
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
        """Leave a question for later; after too many in a row, find out whether the endpoint still answers.

        Raises:
          EndpointError: it does not.
        """
        with self._lock:
            self._fruitless += 1
            in_doubt = self._fruitless >= DOUBT_AFTER
            if in_doubt:
                self._fruitless = 0
        if in_doubt:
            self._probe()
