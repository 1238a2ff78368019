"""Faults at the socket: counts every request and does to it what the fault plan decides.

Needs `tracebridge[testing]`, or `tracebridge[devserver]`.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tracebridge.testing.faults import Fault, Faults

_TRANSPORT = "tracebridge.transport"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Message = MutableMapping[str, Any]


class TransportProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, which also hands the application its transport: a reset needs the socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection for the requests that come over it."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[_TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


class RequestCounts:
    """How many requests came in by method and route. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, route: str) -> None:
        """Count one request."""
        with self._lock:
            self._counts[route] += 1

    def snapshot(self) -> dict[str, int]:
        """The counts since the start or the last reset."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def reset(self) -> None:
        """Start from zero."""
        with self._lock:
            self._counts.clear()


class FaultyApp:
    """An ASGI application behind the fault injector; routes under ``/dev/`` are never struck or counted."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], faults: Faults, counts: RequestCounts) -> None:
        """Requests are counted under the `routes` that they match, else under their path."""
        self._app = app
        self._routes = routes
        self._faults = faults
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or break it."""
        if scope["type"] != "http" or scope["path"].startswith("/dev/"):
            await self._app(scope, receive, send)
            return
        self._counts.add(f"{scope['method']} {self._template(scope)}")
        # of a client that died while it was sending, nothing is stored
        with suppress(ClientDisconnect):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = f"{scope['method']} {scope['path']}"
        if self._faults.looks_into_bodies:
            body = await _body(receive)
            receive = _replaying(body, receive)
            fault = self._faults.decide(route, _uncompressed(body, scope))
        else:
            fault = self._faults.decide(route)
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await self._break(fault, scope, receive, send)

    async def _break(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.latency_s or fault.hang:
            # once it has come in whole, it may be stored though nobody waits for the answer any more
            receive = _replaying(await _body(receive), receive)
        if fault.latency_s:
            await asyncio.sleep(fault.latency_s)
        if fault.hang:
            await asyncio.wrap_future(self._faults.hold())
        scope["tracebridge.fault"] = fault
        app = self._app if fault.status is None else Response(fault.body, fault.status, fault.headers)
        if fault.reset == "before":
            # A client that is still sending would see a broken pipe instead of a reset.
            await _read_all(receive)
            await _reset(scope, receive)
        elif fault.reset == "after":
            await app(scope, receive, _discard)
            await _reset(scope, receive)
        elif fault.truncate:
            await app(scope, receive, _truncating(scope, send))
            await _until_closed(receive)
        else:
            await app(scope, receive, send)

    def _template(self, scope: Scope) -> str:
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                return str(getattr(route, "path", scope["path"]))
        return str(scope["path"])


def fault_of(scope: Mapping[str, Any]) -> Fault:
    """The fault that struck this request, or one without effects."""
    fault = scope.get("tracebridge.fault")
    return fault if isinstance(fault, Fault) else Fault()


def copies_to_store(fault: Fault) -> int:
    """How often to store what the request holds."""
    if fault.drop:
        return 0
    return 2 if fault.duplicate else 1


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already once more, and then what comes."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _uncompressed(body: bytes, scope: Scope) -> bytes:
    """The body as it was before gzip; one that cannot be read as such stays as it is."""
    if dict(scope["headers"]).get(b"content-encoding", b"").lower() != b"gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return body


async def _discard(message: Message) -> None:
    """Send nothing: the connection is about to be reset."""


def _truncating(scope: Scope, send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_half(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        scope[_TRANSPORT].close()

    return send_half


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _until_closed(receive: Receive) -> None:
    """Return only when the connection is gone, else uvicorn tries to complete the answer and complains."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(scope: Scope, receive: Receive) -> None:
    transport: asyncio.Transport = scope[_TRANSPORT]
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
    await _until_closed(receive)
