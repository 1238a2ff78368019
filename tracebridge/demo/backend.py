"""`Backend`: the development backend in a process of its own, and what its development routes can do."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from tracebridge.errors import BackendError

PUBLIC_KEY: Final = "pk-lf-dev"
SECRET_KEY: Final = "sk-lf-dev"
LANGFUSE_ROUTE: Final = "POST /api/public/otel/*"
"""Where spans for LangFuse are sent to."""

_START_TIMEOUT_S: Final = 20.0
_REQUEST_TIMEOUT_S: Final = 10.0
_URL: Final = re.compile(r"http://\S+:\d+")


class Backend:
    """A development backend that runs, seen from outside."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return urlsplit(self.url).port or 0

    def refuse(self, route: str, status: int) -> None:
        """Answer every request on `route` with an error from now on."""
        self._ask("PUT", "/dev/faults", {"faults": [{"route": route, "status": status}]})

    def refused(self) -> int:
        """Return how many requests were refused since `refuse`."""
        return sum(self._ask("GET", "/dev/faults")["struck"])

    def serve_again(self) -> None:
        """Refuse nothing any more."""
        self._ask("DELETE", "/dev/faults")

    def stored_output(self, trace_id: str, observation_id: str) -> str | None:
        """Return an observation's output, by LangFuse's public API.

        Raises:
            BackendError: it is not there.
        """
        query = urlencode({"traceId": trace_id, "fields": "core,io", "limit": 1000})
        for observation in self._ask("GET", f"/api/public/v2/observations?{query}")["data"]:
            if observation["id"] == observation_id:
                output: str | None = observation["output"]
                return output
        raise BackendError(f"{self.url}: no observation {observation_id} in the trace {trace_id}")

    def change_output(self, trace_id: str, observation_id: str, output: str | None) -> None:
        """Put another output into a stored observation, behind everybody's back."""
        self._ask("PATCH", f"/dev/langfuse/{trace_id}/{observation_id}", {"output": output})

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        # the standard library's client: the core has no other, and this one asks no proxy for the loopback
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_REQUEST_TIMEOUT_S)
        credentials = b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()
        try:
            content = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, content, {"Authorization": f"Basic {credentials}"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BackendError(f"{self.url}: {method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise BackendError(f"{self.url}: {method} {path}: HTTP {answer.status}: {text.decode(errors='replace')}")
        return msgspec.json.decode(text)


@contextmanager
def running_backend(db: Path, log: Path) -> Iterator[Backend]:
    """Start a development backend on a free port, and stop it at the end of the block.

    Raises:
        BackendError: it does not start; the message holds what it wrote to its log.
    """
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracebridge", "devserver", "--port", "0", "--db", str(db)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None, "asked for as a pipe"
    with process.stdout:
        try:
            url = _announced_url(process, process.stdout)
            if url is None:
                raise BackendError(f"the development backend did not start; it said:\n{log.read_text()[-2000:]}")
            yield Backend(url, process.pid)
        finally:
            process.terminate()
            process.wait()


def _announced_url(process: subprocess.Popen[str], said: IO[str]) -> str | None:
    """Wait until the backend says that it answers, and where; None if it ends, or says nothing for too long."""
    too_late = threading.Timer(_START_TIMEOUT_S, process.kill)
    too_late.start()
    try:
        return next((found[0] for line in said if (found := _URL.search(line))), None)
    finally:
        too_late.cancel()
