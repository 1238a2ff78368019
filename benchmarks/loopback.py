"""A server that takes OTLP on loopback, counts the spans and keeps nothing: `python benchmarks/loopback.py`.

It prints its port, then answers every line on standard input with the number of requests and of spans since the last
one, and ends with that input. `--round-trip-ms` makes each answer wait, as a network would.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RESOURCE_SPANS = 1
_SCOPE_SPANS = 2
_SPANS = 2


def serve(round_trip_s: float) -> None:
    """Serve until standard input ends."""
    lock = threading.Lock()
    requests = spans = 0

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # the head and the body of an answer are two writes, and the second must not wait for an acknowledgement
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            nonlocal requests, spans
            began = time.monotonic()
            received = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            found = count_spans(gzip.decompress(received) if zipped else received)
            with lock:
                requests, spans = requests + 1, spans + found
            # LangFuse answers JSON whatever it is sent, and everybody else in the form of the request
            is_langfuse = "/public/otel/" in self.path
            answer = b"{}" if is_langfuse else b""
            time.sleep(max(0.0, round_trip_s - (time.monotonic() - began)))
            self._answer("application/json" if is_langfuse else "application/x-protobuf", answer)

        def do_GET(self) -> None:
            # LangFuse's v2 API: it holds nothing yet
            self._answer("application/json", b'{"data": [], "meta": {}}')

        def _answer(self, content_type: str, answer: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for _ in sys.stdin:
        with lock:
            print(requests, spans, flush=True)
            requests = spans = 0


def count_spans(request: bytes) -> int:
    """How many spans an `ExportTraceServiceRequest` holds."""
    view = memoryview(request)
    return sum(
        1
        for resource_spans in _fields(view, _RESOURCE_SPANS)
        for scope_spans in _fields(resource_spans, _SCOPE_SPANS)
        for _ in _fields(scope_spans, _SPANS)
    )


def _fields(message: memoryview, number: int) -> Iterator[memoryview]:
    """The fields of a number in a message that has only fields with a length."""
    at = 0
    while at < len(message):
        tag = message[at]
        size, at = _varint(message, at + 1)
        if tag == number << 3 | 2:
            yield message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    serve(parser.parse_args().round_trip_ms / 1000)
