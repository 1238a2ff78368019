"""Watching whether code that must be free of I/O is: CPython tells of files, sockets and processes it opens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PREFIXES: Final = ("open", "socket.", "subprocess.", "os.", "shutil.", "sqlite3.", "urllib.", "http.client.", "ssl.")
_CONNECTING: Final = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


class _Watch:
    """One audit hook for the whole process, as none can be removed; it notes what the watched thread does."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[str] = []
        self.is_added = False

    def note(self, event: str, arguments: tuple[object, ...]) -> None:
        if threading.get_ident() == self.thread and event.startswith(_PREFIXES):
            self.seen.append(f"{event}{arguments[:2]!r}")

    def add(self) -> None:
        if not self.is_added:
            self.is_added = True
            sys.addaudithook(self.note)


_WATCH: Final = _Watch()


@contextmanager
def io_of_this_thread() -> Iterator[list[str]]:
    """A list that fills with what the body of the `with` block opens, in this thread. It cannot be nested."""
    _WATCH.add()
    seen: list[str] = []
    _WATCH.seen, _WATCH.thread = seen, threading.get_ident()
    try:
        yield seen
    finally:
        _WATCH.thread = None


def connections(seen: list[str]) -> list[str]:
    """Those that reach for the network."""
    return [event for event in seen if event.startswith(_CONNECTING)]
