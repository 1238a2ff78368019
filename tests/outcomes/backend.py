"""Backends that take traces at a real socket, count what they keep, and answer each request as a rule says."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from tests.otlp.scripted_collector import collector
from tests.otlp.scripted_server import answering, http_answer, scripted_server

PROTOBUF = "application/x-protobuf"
SpanId = tuple[str, str]
"""Trace and span id, in hex."""


class Request(msgspec.Struct, frozen=True):
    """What came."""

    head: bytes
    """Request line and headers; empty over gRPC."""
    body: bytes
    """The export, not compressed."""
    at: float
    """When, by the monotonic clock."""

    @property
    def spans(self) -> list[WireSpan]:
        export = ExportTraceServiceRequest.FromString(self.body)
        return [span for resource in export.resource_spans for scope in resource.scope_spans for span in scope.spans]

    def holds(self, words: str) -> bool:
        return words.encode() in self.body


class Reply(msgspec.Struct, frozen=True):
    """What becomes of a request, and what the client sees of it."""

    script: Callable[..., Any]
    """What answers: over HTTP a `Script`; over gRPC it gets the body and the context, and returns the answer."""
    keeps: Callable[[WireSpan], bool] = lambda _: False
    """Which of the request's spans are stored."""


def keeps_all(_: WireSpan) -> bool:
    return True


ACCEPT = Reply(answering(http_answer(200, PROTOBUF)), keeps=keeps_all)

Rule = Callable[[Request], Reply]


def answer(status: int, media_type: str = "", body: bytes = b"", *headers: str) -> Reply:
    """An answer to a request of which nothing was stored."""
    return Reply(answering(http_answer(status, media_type, body, *headers)))


def in_turn(replies: Iterable[Reply], then: Reply = ACCEPT) -> Rule:
    """Give one reply after the other, and then always the last."""
    left = iter(replies)
    return lambda _: next(left, then)


def where(words: str, reply: Reply, otherwise: Reply = ACCEPT) -> Rule:
    """Give `reply` to every request that holds a span with these words in it."""
    return lambda request: reply if request.holds(words) else otherwise


class Kept:
    """What a backend was asked to take, and what it took."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.requests: list[Request] = []
        self.stored: Counter[SpanId] = Counter()
        self._guard = threading.Lock()

    def take(self, request: Request) -> Reply:
        """Decide on a request, and store what is to be kept of it."""
        with self._guard:
            self.requests.append(request)
            reply = self.rule(request)
            self.stored.update((span.trace_id.hex(), span.span_id.hex()) for span in request.spans if reply.keeps(span))
        return reply


class HttpBackend(Kept):
    """Takes exports over HTTP."""

    def __init__(self, rule: Rule, relay_to: str = "") -> None:
        """Answer as `rule` says; store at `relay_to` too, whose query API then stands at this address as well."""
        super().__init__(rule)
        self.url = ""
        self._relay_to = relay_to

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[str]:
        """Serve, at a free port unless told which; gives the URL."""
        with scripted_server(self._serve, tls=tls, port=port) as url:
            self.url = url
            yield url

    def _serve(self, connection: socket.socket, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"POST "):
            is_query = head.startswith(b"GET ") and self._relay_to
            connection.sendall(_relayed(self._relay_to, head, body) if is_query else http_answer(400))
            return
        is_packed = b"content-encoding: gzip" in head.lower()
        plain = gzip.decompress(body) if is_packed else body
        request = Request(head, plain, time.monotonic())
        reply = self.take(request)
        if self._relay_to:
            kept = _kept_of(request, reply)
            assert b" 200 " in _relayed(self._relay_to, head, gzip.compress(kept) if is_packed else kept)
        reply.script(connection, raw)


class GrpcBackend(Kept):
    """Takes exports over gRPC."""

    @contextmanager
    def serving(self, tls: grpc.ServerCredentials | None = None, port: int = 0) -> Iterator[str]:
        """Serve, at a free port unless told which; gives the URL."""

        def serve(body: bytes, context: grpc.ServicerContext) -> bytes:
            answer: bytes = self.take(Request(b"", body, time.monotonic())).script(body, context)
            return answer

        with collector(serve, tls=tls, port=port) as url:
            yield url


def _kept_of(request: Request, reply: Reply) -> bytes:
    export = ExportTraceServiceRequest.FromString(request.body)
    for resource in export.resource_spans:
        for scope in resource.scope_spans:
            kept = [span for span in scope.spans if reply.keeps(span)]
            del scope.spans[:]
            scope.spans.extend(kept)
    return export.SerializeToString()


def _relayed(url: str, head: bytes, body: bytes) -> bytes:
    """Send a request on to another server; return its whole answer."""
    line, *headers = head.split(b"\r\n")
    kept = [header for header in headers if not header.lower().startswith((b"content-length:", b"connection:"))]
    length = b"content-length: %d" % len(body)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(b"\r\n".join([line, *kept, length, b"connection: close", b"", b""]) + body)
        received = bytearray()
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)
