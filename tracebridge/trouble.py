"""`Trouble`: what went wrong while recording. It is counted by kind, told once per kind, and never raised."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping

from tracebridge.interruption import is_interruption


class Trouble:
    """Counts what could not be recorded as asked, and why.

    `on_error` is called with every exception; a test passes a function that raises it or keeps it.
    """

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._on_error = on_error
        self._counts: dict[str, int] = {}
        self._lock = threading.RLock()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each kind of trouble occurred, e.g. `{"journal: ENOSPC": 12}`."""
        return dict(self._counts)

    def report(self, part: str, error: BaseException, consequence: str, count: int = 1) -> str:
        """Count `error`, and log it if it is the first of its kind. Returns the kind's name.

        Args:
            part: what was at work, e.g. `journal`; a part of the kind's name.
            error: what happened.
            consequence: what it means for the recording, and what to do; a part of the message.
            count: how often it happened, e.g. how many events it cost.

        Raises:
            BaseException: `error` itself, if it is no trouble of ours: a signal handler of the agent raised it.
        """
        if is_interruption(error):
            raise error
        kind = f"{part}: {_name(error)}"
        with self._lock:
            before = self._counts.get(kind, 0)
            self._counts[kind] = before + count
        if not before:
            # imported here: most processes never need it, and it would be a tenth of the time of the import
            from tracebridge.log import log

            log.error("%s: %s. %s. Further trouble of this kind is counted, not logged.", kind, error, consequence)
        if self._on_error is not None:
            self._on_error(error)
        return kind

    def after_fork(self) -> None:
        """Start anew in a forked child, where the thread that held the lock may not exist."""
        self._lock = threading.RLock()
        self._counts = {}


def _name(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, str(error.errno))
    return type(error).__name__
