"""`FaultyServer`: a backend of one's own behind the fault injector, at a real socket. Needs `tracebridge[testing]`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from tracebridge.errors import TracebridgeError
from tracebridge.testing.faults import Faults
from tracebridge.testing.faulty import FaultyApp, RequestCounts, TransportProtocol
from tracebridge.threads import BackgroundThread

_START_TIMEOUT_S: Final = 10.0


class ServerError(TracebridgeError):
    """The server could not start."""


class FaultyServer:
    """Serves an ASGI application in a thread of this process, on a free port of 127.0.0.1, as a context manager.

    Each request meets what `faults` decides before the application sees it, if it does at all:

        with FaultyServer(app) as server:
            server.faults.add(Fault(route="POST *", status=503, times=2))
            ...  # send something to server.url
    """

    def __init__(self, app: ASGIApp, faults: Faults | None = None, routes: Sequence[BaseRoute] = ()) -> None:
        """Requests are counted under the `routes` that they match, else under their path."""
        self.faults = faults or Faults()
        self._counts = RequestCounts()
        faulty = FaultyApp(app, routes, self.faults, self._counts)
        config = uvicorn.Config(
            faulty, http=TransportProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_graceful_shutdown=1, server_header=False, proxy_headers=False,
        )  # fmt: skip
        self._started = threading.Event()
        self._server = _Server(config, self._started)
        # the protocol is named because asyncio turns Nagle's delay (40 ms an answer) off only where it is
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._thread = BackgroundThread(target=self._run, name="tracebridge-faulty-server")

    @property
    def url(self) -> str:
        """Where it listens, e.g. ``http://127.0.0.1:43210``."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def requests(self) -> dict[str, int]:
        """Requests since the start, by ``METHOD /path``."""
        return self._counts.snapshot()

    def __enter__(self) -> FaultyServer:
        """Start; return once it accepts connections."""
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT_S):
            raise ServerError(f"the server did not start within {_START_TIMEOUT_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, letting hanging requests go."""
        self._server.should_exit = True
        self.faults.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._socket.close()


class _Server(uvicorn.Server):
    """Tells when it accepts connections."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._has_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._has_started.set()
