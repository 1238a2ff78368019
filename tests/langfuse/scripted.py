"""An HTTP server on loopback whose answers a test writes down."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit


class Reply(NamedTuple):
    """An answer that is more than a status and JSON."""

    status: int
    body: Any
    """JSON, but for bytes, which are sent as they are."""
    headers: Mapping[str, str] = {}
    sent: int | None = None
    """After how many bytes of the body the connection ends."""
    tells_length: bool = True


Answer = Callable[[str, dict[str, str]], tuple[int, Any] | Reply]
"""Path and query parameters to the answer."""


@contextmanager
def scripted(answer: Answer) -> Iterator[str]:
    """Serve `answer` on a free port; the value is the server's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            reply = Reply(*answer(url.path, {name: values[0] for name, values in parse_qs(url.query).items()}))
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            headers = {"content-type": "application/json; charset=utf-8", **reply.headers}
            if reply.tells_length:
                headers["content-length"] = str(len(data))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: reply.sent])

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
