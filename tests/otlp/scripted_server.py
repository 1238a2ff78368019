"""A server at the socket that does exactly what a test scripts: answers that no well-made server gives."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Script = Callable[[socket.socket, bytes], None]
"""Gets the connection and the whole request, head and body, once it has come."""


@contextmanager
def scripted_server(
    script: Script,
    *,
    read_request: bool = True,
    tls: ssl.SSLContext | None = None,
    buffer: int = 0,
    port: int = 0,
) -> Iterator[str]:
    """Serve each connection in a thread of its own; gives the server's URL.

    Args:
        script: What to do with a connection; it is closed afterwards.
        read_request: Whether the request is read before; else the script gets an empty one.
        tls: How to speak TLS, if at all.
        buffer: How many bytes of what nobody reads the system takes in, if not as many as it likes.
        port: Where to listen, if not at a free port.
    """
    listener = socket.create_server(("127.0.0.1", port))
    if buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    open_now: set[socket.socket] = set()
    threads = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            served = connection if tls is None else tls.wrap_socket(connection, server_side=True)
            open_now.add(served)
            with served:
                script(served, request_on(served) if read_request else b"")
            open_now.discard(served)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            thread.start()
            threads.append(thread)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # close() alone does not wake up a thread that waits in accept() or recv()
        for waiting in (listener, *open_now):
            with suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(timeout=5)


def answering(answer: bytes) -> Script:
    """Answer every request with these bytes and close the connection."""
    return lambda connection, _: connection.sendall(answer)


def slowly(answer: bytes, after_s: float) -> Script:
    """Answer every request so many seconds late."""

    def wait(connection: socket.socket, _: bytes) -> None:
        if not has_hung_up(connection, after_s):
            connection.sendall(answer)

    return wait


def hang(connection: socket.socket, _: bytes = b"") -> None:
    """Say nothing until the client hangs up."""
    while not has_hung_up(connection, 10.0):
        pass


def dripping(head: bytes, drops: Iterable[bytes], every_s: float = 0.02) -> Script:
    """Send `head`, then one of `drops` now and then, until there are no more or the client hangs up."""

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for drop in drops:
            if has_hung_up(connection, every_s):
                return
            connection.sendall(drop)

    return drip


def flooding(head: bytes, piece: bytes, times: int = 1 << 60) -> Script:
    """Send `head`, then `piece` again and again as fast as it is read."""

    def flood(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for _time in range(times):
            connection.sendall(piece)

    return flood


def reset(connection: socket.socket, _: bytes = b"") -> None:
    """Break the connection off at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def has_hung_up(connection: socket.socket, seconds: float) -> bool:
    """Whether the client closes the connection within so many seconds; what it sends meanwhile is thrown away."""
    readable, _, _ = select.select([connection], [], [], seconds)
    return bool(readable) and not connection.recv(65536)


def http_answer(status: int, media_type: str = "", body: bytes = b"", *more: str) -> bytes:
    """A whole HTTP answer."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close", *more]
    if media_type:
        head.append(f"Content-Type: {media_type}")
    return "\r\n".join([*head, "", ""]).encode() + body


def request_on(connection: socket.socket) -> bytes:
    """Read one request, head and body; less if the client stops, or does not speak HTTP."""
    received = bytearray()
    while b"\r\n\r\n" not in received and (not received or received[:1].isalpha()):
        chunk = connection.recv(65536)
        if not chunk:
            return bytes(received)
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
    return bytes(head + b"\r\n\r\n" + body)
