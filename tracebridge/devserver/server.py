"""Running the development backend: in a background thread for tests, or in the foreground."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import grpc
import msgspec
import uvicorn

from tracebridge.devserver.app import create_app
from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.grpc_receiver import start_grpc
from tracebridge.devserver.langfuse_api import Credentials
from tracebridge.devserver.store import Store
from tracebridge.devserver.tempo_api import Tempo
from tracebridge.testing.faults import Faults
from tracebridge.testing.faulty import RequestCounts, TransportProtocol
from tracebridge.threads import BackgroundThread

PUBLIC_KEY = "pk-lf-dev"
SECRET_KEY = "sk-lf-dev"
_START_TIMEOUT_S = 10.0
_BACKLOG = 512


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the backend listens and what it keeps."""

    host: str = "127.0.0.1"
    port: int = 0
    grpc_port: int | None = None
    db: Path | None = None
    credentials: Credentials = Credentials(PUBLIC_KEY, SECRET_KEY)
    tempo: Tempo = Tempo()


class DevServer:
    """The backend in a thread of this process, as a context manager.

    ``with DevServer() as server:`` listens on a free port of 127.0.0.1 and forgets everything at the end;
    with `db` it keeps everything in that file. No signal handlers, no network but loopback.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        db: str | Path | None = None,
        public_key: str = PUBLIC_KEY,
        secret_key: str = SECRET_KEY,
        grpc_port: int | None = None,
        tempo: Tempo = Tempo(),  # noqa: B008  # never changed
        faults: Faults | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self._counts = RequestCounts()
        self._settings = Settings(
            host=host,
            port=port,
            grpc_port=grpc_port,
            db=Path(db) if db is not None else None,
            credentials=Credentials(public_key, secret_key),
            tempo=tempo,
        )
        self._backend: _Backend | None = None
        self._thread: BackgroundThread | None = None

    @property
    def url(self) -> str:
        """Where it listens, e.g. ``http://127.0.0.1:43210``."""
        return self._running.url

    @property
    def grpc_endpoint(self) -> str | None:
        """``host:port`` of OTLP/gRPC, if it was asked for."""
        return self._running.grpc_endpoint

    @property
    def public_key(self) -> str:
        """The Langfuse public key that it accepts."""
        return self._settings.credentials.public_key

    @property
    def secret_key(self) -> str:
        """The Langfuse secret key that it accepts."""
        return self._settings.credentials.secret_key

    @property
    def requests(self) -> dict[str, int]:
        """Requests since start or reset, by ``METHOD /route/{parameter}``."""
        return self._counts.snapshot()

    def clear(self) -> None:
        """Forget what is stored, the faults and the request counts: as good as a new one, but at once."""
        self._running.store.clear()
        self.faults.clear()
        self._counts.reset()

    def start(self) -> DevServer:
        """Start and return once it accepts connections."""
        started = threading.Event()
        self._backend = _Backend(self._settings, self.faults, self._counts, started.set)
        self._thread = BackgroundThread(target=self._backend.run, name="tracebridge-devserver")
        self._thread.start()
        if not started.wait(_START_TIMEOUT_S):
            self.stop()
            raise DevServerError(f"the development backend did not start within {_START_TIMEOUT_S:g} s")
        return self

    def stop(self) -> None:
        """Stop, letting hanging requests go; what was stored in a file stays there."""
        if self._backend is not None and self._thread is not None:
            self._backend.stop()
            self._thread.join()
        self._backend = self._thread = None

    def __enter__(self) -> DevServer:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def _running(self) -> _Backend:
        if self._backend is None:
            raise DevServerError("the development backend is not running; use it in a `with` block")
        return self._backend


def serve(
    settings: Settings | None = None,
    *,
    faults: Faults | None = None,
    ready: Callable[[str], None] | None = None,
    grpc_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve in the foreground until Ctrl-C; `ready` is called with the URL once connections are accepted.

    `grpc_ready` is called after it with `host:port` of OTLP/gRPC, if that was asked for.
    """
    backend: _Backend | None = None

    def started() -> None:
        if ready is not None and backend is not None:
            ready(backend.url)
        if grpc_ready is not None and backend is not None and backend.grpc_endpoint is not None:
            grpc_ready(backend.grpc_endpoint)

    backend = _Backend(settings or Settings(), faults or Faults(), RequestCounts(), started)
    try:
        backend.run()
    except KeyboardInterrupt:
        return  # uvicorn has stopped cleanly and then passes the signal on


class _Backend:
    """One start of the backend: its sockets, its store and the servers over them."""

    def __init__(self, settings: Settings, faults: Faults, counts: RequestCounts, started: Callable[[], None]) -> None:
        self._faults = faults
        self._socket = _listening_socket(settings.host, settings.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.grpc_endpoint: str | None = None
        self._grpc: grpc.Server | None = None
        with ExitStack() as opened:
            opened.callback(self._socket.close)
            self.store = Store(settings.db)
            opened.callback(self.store.close)
            if settings.grpc_port is not None:
                self._grpc, grpc_port = start_grpc(host, settings.grpc_port, self.store, faults, counts)
                self.grpc_endpoint = f"{host}:{grpc_port}"
            # from here on it is `run` that closes them
            opened.pop_all()
        app = create_app(self.store, settings.credentials, settings.tempo, faults, counts, started)
        config = uvicorn.Config(
            app, http=TransportProtocol, ws="none", lifespan="on", log_config=None, access_log=False,
            timeout_graceful_shutdown=1, server_header=False, proxy_headers=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until `stop`, or until a signal when this is the main thread."""
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._faults.release()
            if self._grpc is not None:
                self._grpc.stop(grace=1).wait()
            self.store.close()
            self._socket.close()

    def stop(self) -> None:
        """Ask `run` to end; may be called from any thread."""
        self._server.should_exit = True
        self._faults.release()


def _listening_socket(host: str, port: int) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise DevServerError(f"{host} is no loopback address; use 127.0.0.1 or ::1") from None
    if not parsed.is_loopback:
        raise DevServerError(
            f"the development backend is unprotected and listens on loopback only, not on {host}; use 127.0.0.1 or ::1"
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's delay (40 ms an answer) off only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise DevServerError(
            f"cannot listen on {host}:{port}: {error}; choose another port, or 0 for a free one"
        ) from error
    return listener
