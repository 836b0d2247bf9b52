"""A real HTTP server on this machine that speaks chat completions and misbehaves.

What it does to a request is decided by a public seed, the question, and how often that question arrived, so a run can
be repeated whatever order its threads take. It counts what a provider would bill: `computed`, each answer made,
delivered or not, and `delivered`, each answer that was sent whole. With `honors_idempotency` a repeated request with
the key of an earlier one gets that one's answer and is not computed again. `listed` are the models that it lists, None
if it has no list.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dp_assets.alignment.endpoint import PROBE_TEXT

MODEL = "tiny-judge"
STATUSES = {"error": 500, "limited": 429, "rejected": 400, "no_credit": 429, "unpaid": 402}
STATUSES |= {"forbidden": 403, "unavailable": 404, "illegal": 451}
INSIDE = {
    "error_inside": {"error": {"message": "Provider returned error", "code": 502}},
    "error_in_choice": {"choices": [{"error": {"code": 502}, "finish_reason": "error", "message": {"content": "bec"}}]},
    "limited_inside": {"error": {"code": "429"}, "choices": None},
    "nothing_inside": {"id": "1", "object": "chat.completion", "choices": []},
    "no_credit_inside": {"error": {"type": "insufficient_quota"}},
    "forbidden_inside": {"error": {"message": "flagged", "code": 403}},
}
"""What comes with HTTP 200 and is no completion."""


@dataclass
class Request:
    """One request for a completion, as the server saw it."""

    arrived: float
    question: str
    kind: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    tokens: int = 0


@dataclass
class FakeEndpoint:
    """How the server behaves, and what it saw. `shares` gives kinds of misbehavior their probability.

    `plan`, if it is there, decides instead: it gets a question and how often it arrived before, and returns a kind.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    plan: Callable[[str, int], str] | None = None
    seed: int = 0
    key: str | None = None
    listed: tuple[str, ...] | None = (MODEL,)
    honors_idempotency: bool = True
    reports_usage: bool = True
    stall_seconds: float = 1.0
    retry_after: str = "0.02"
    delay: Callable[[str], float] = lambda question: 0.0
    reply: Callable[[str], str] = lambda question: f"answer to {question}"
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    listings: list[Request] = field(default_factory=list)
    computed: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _made: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def questions(self) -> list[str]:
        """The questions that arrived, without probes, in the order of their arrival."""
        return [request.question for request in self.requests if request.question != PROBE_TEXT]

    def kind_of(self, question: str, arrivals: int) -> str:
        if self.plan is not None:
            return self.plan(question, arrivals)
        if question == PROBE_TEXT:
            return "fine"
        digest = hashlib.sha256(f"{self.seed}:{arrivals}:{question}".encode()).digest()
        drawn = int.from_bytes(digest[:8]) / 2**64
        for kind, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return kind
        return "fine"

    def completion(self, question: str, kind: str, key: str) -> dict[str, Any]:
        """A completion, computed once for each idempotency key if the server honors it."""
        with self.lock:
            if self.honors_idempotency and key in self._made:
                return self._made[key]
            self.computed[question] += 1
            text = "ready" if question == PROBE_TEXT else self.reply(question)
            self._made[key] = completion(text, question, kind, self.reports_usage)
            return self._made[key]


def completion(text: str, question: str, kind: str, reports_usage: bool) -> dict[str, Any]:
    """The body of a chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": "" if kind == "empty" else text}
    if kind == "odd":
        message = {"role": "assistant", "content": {"answer": text}}
    if kind == "parts":
        message = {"role": "assistant", "content": [{"type": "text", "text": part} for part in (text[:3], text[3:])]}
    if kind == "refused":
        message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
    choice = {"index": 0, "message": message, "finish_reason": "length" if kind == "truncated" else "stop"}
    usage = {"prompt_tokens": len(question.split()), "completion_tokens": len(text.split())}
    return {"id": "1", "object": "chat.completion", "choices": [choice], **({"usage": usage} if reports_usage else {})}


@contextmanager
def serving(endpoint: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """Run the server until the block ends; `endpoint.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            endpoint.listings.append(Request(time.monotonic(), "", "list", _headers(self), {}))
            if endpoint.listed is None:
                return _send(self, 404, "{}")
            models = [{"id": name, "object": "model"} for name in endpoint.listed]
            return _send(self, 200, json.dumps({"object": "list", "data": models}))

        def do_POST(self) -> None:
            _handle(self, endpoint)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 64

        def handle_error(self, *_: Any) -> None:
            pass  # a client that was killed or lost patience

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield endpoint
        finally:
            server.shutdown()


def _handle(handler: BaseHTTPRequestHandler, endpoint: FakeEndpoint) -> None:
    arrived = time.monotonic()
    body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
    question, headers = body["messages"][-1]["content"], _headers(handler)
    if endpoint.key is not None and headers.get("authorization") != f"Bearer {endpoint.key}":
        kind = "unauthorised"
    elif body["model"] != MODEL:
        kind = "unknown"
    else:
        with endpoint.lock:
            arrivals = sum(request.question == question for request in endpoint.requests)
        kind = endpoint.kind_of(question, arrivals)
    request = Request(arrived, question, kind, headers, body)
    with endpoint.lock:
        endpoint.requests.append(request)
    _respond(handler, endpoint, request)


def _headers(handler: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): text for name, text in handler.headers.items()}


def _respond(handler: BaseHTTPRequestHandler, endpoint: FakeEndpoint, request: Request) -> None:
    kind, question = request.kind, request.question
    if kind in ("unauthorised", "unknown"):
        seen = request.headers.get("authorization")
        return _send(handler, 401 if kind == "unauthorised" else 404, json.dumps({"error": {"message": f"no: {seen}"}}))
    if kind in STATUSES:
        error = {"message": kind, "code": "insufficient_quota" if kind == "no_credit" else kind}
        wait = {"Retry-After": endpoint.retry_after} if kind == "limited" else {}
        return _send(handler, STATUSES[kind], json.dumps({"error": error}), wait)
    if kind in INSIDE or kind == "garbled":
        return _send(handler, 200, json.dumps(INSIDE[kind]) if kind in INSIDE else "<html>busy</html>")
    made = endpoint.completion(question, kind, request.headers["idempotency-key"])
    request.tokens = sum(made.get("usage", {}).values())
    content = json.dumps(made)
    time.sleep(endpoint.stall_seconds if kind == "stall" else endpoint.delay(question))
    if kind in ("stall", "cut"):
        handler.close_connection = True
        return _send(handler, 200, content[: len(content) // 2], {"Content-Length": str(len(content))})
    with endpoint.lock:
        endpoint.delivered[question] += 1
    return _send(handler, 200, content)


def _send(handler: BaseHTTPRequestHandler, status: int, content: str, headers: Mapping[str, str] | None = None) -> None:
    handler.send_response(status)
    sent = {"Content-Type": "application/json", "Content-Length": str(len(content.encode())), **(headers or {})}
    for name, text in sent.items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(content.encode())
