"""A server at the socket that does exactly what a test scripts: answers that no well-made server gives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[socket.socket, bytes], None]
"""Gets the connection and the whole request, head and body, once it has come."""


@contextmanager
def scripted_server(script: Script, *, read_request: bool = True) -> Iterator[str]:
    """Serve one connection after the other; gives the server's URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    script(connection, _request(connection) if read_request else b"")
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # close() alone does not wake up a thread that waits in accept()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def answering(answer: bytes) -> Script:
    """Answer every request with these bytes and close the connection."""
    return lambda connection, _: connection.sendall(answer)


def http_answer(status: int, media_type: str = "", body: bytes = b"", *more: str) -> bytes:
    """A whole HTTP answer."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close", *more]
    if media_type:
        head.append(f"Content-Type: {media_type}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")),
        0,
    )
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            break
        body += chunk
    return head + b"\r\n\r\n" + body
