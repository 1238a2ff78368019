"""`BoundedNetwork`: connections whose every step ends at one deadline, whatever the peer does.

An HTTP client's own time-outs are those of one read or one write: a peer that takes or gives a byte now and then
keeps it busy for ever. Looking up a name has no time-out at all.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final

import httpcore

from tracebridge.threads import BackgroundThread

Resolver = Callable[[str, int], list[str]]
"""Gives the addresses of a host, the best first, and raises OSError or UnicodeError if there are none."""

_PIECE: Final = 16 * 1024
"""So much is written over TLS between two looks at the clock; a record holds no more."""


class BoundedNetwork(httpcore.NetworkBackend):
    """Opens connections for any number of threads; what a thread does in `bounded` ends in time."""

    def __init__(self, resolve: Resolver | None = None) -> None:
        """Look names up with `resolve`, else as the system does."""
        self._resolve = resolve or _system_addresses
        self._network = httpcore.SyncBackend()
        self._deadline = Deadline()

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Let everything that this thread does on these connections meanwhile take so long at most, in all."""
        with self._deadline.set(seconds):
            yield

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that answers; each has its share of the time that is left.

        Raises:
            httpcore.ConnectError: there is no such host, or it cannot be reached.
            httpcore.ConnectTimeout: the time is up.
        """
        addresses = self._addresses(host, port)
        for place, address in enumerate(addresses):
            try:
                with self._deadline.ends(httpcore.ConnectTimeout) as left_s:
                    share_s = left_s / (len(addresses) - place)
                    stream = self._network.connect_tcp(address, port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place == len(addresses) - 1:
                    raise
            else:
                return _BoundedStream(stream, self._deadline)
        raise httpcore.ConnectError(f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        if _is_address(host):
            return [host]
        answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(self._resolve(host, port))
            except Exception as error:
                answers.put(error)

        try:
            BackgroundThread(target=look_up, name="tracebridge-resolve").start()
        except RuntimeError:
            # no thread can be started any more while the interpreter exits
            look_up()
        try:
            with self._deadline.ends(httpcore.ConnectTimeout) as left_s:
                answer = answers.get(timeout=left_s)
        except Empty:
            raise httpcore.ConnectTimeout(f"the name {host} was not looked up in time") from None
        if isinstance(answer, Exception):
            raise httpcore.ConnectError(str(answer)) from answer
        return answer


class Deadline:
    """When what a thread does must be over; each thread has its own."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    @contextmanager
    def set(self, seconds: float) -> Iterator[None]:
        """Let it be so many seconds from now."""
        self._of_thread.seconds = seconds
        self._of_thread.at = time.monotonic() + seconds
        try:
            yield
        finally:
            del self._of_thread.at

    @contextmanager
    def ends(self, late: type[httpcore.TimeoutException]) -> Iterator[float]:
        """Gives how many seconds are left for one step, and says the same of all that are not done by then.

        Raises:
            httpcore.TimeoutException: `late`, if the time is up, before the step or in it.
        """
        left_s: float = self._of_thread.at - time.monotonic()
        words = f"not done within {self._of_thread.seconds:g} s"
        if left_s <= 0:
            raise late(words)
        try:
            yield left_s
        except httpcore.TimeoutException:
            raise late(words) from None


class _BoundedStream(httpcore.NetworkStream):
    """A connection. The time-outs that its methods are given are longer than what is left, and not needed."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._deadline.ends(httpcore.ReadTimeout) as left_s:
            return self._stream.read(max_bytes, left_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            # sending nothing would use up the word that the peer has broken off, and reading would find an end
            return
        if self._stream.get_extra_info("ssl_object") is None:
            with self._deadline.ends(httpcore.WriteTimeout) as left_s:
                _send_all(self._stream.get_extra_info("socket"), buffer, left_s)
            return
        for start in range(0, len(buffer), _PIECE):
            with self._deadline.ends(httpcore.WriteTimeout) as left_s:
                self._stream.write(buffer[start : start + _PIECE], left_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with self._deadline.ends(httpcore.ConnectTimeout) as left_s:
            return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _send_all(connection: socket.socket, buffer: bytes, timeout_s: float) -> None:
    """Send all of it in so many seconds: the time-out of a plain socket's `sendall` is one for the whole.

    Piece by piece, an agent's thread and the sender's would wait for one another at every piece.
    """
    try:
        connection.settimeout(timeout_s)
        connection.sendall(buffer)
    except TimeoutError as error:
        raise httpcore.WriteTimeout(error) from error
    except OSError as error:
        raise httpcore.WriteError(error) from error


def _system_addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
