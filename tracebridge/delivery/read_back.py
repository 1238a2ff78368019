"""`ReadBack`: the reader of one sink, opened when it is needed and left alone for a while when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable

from tracebridge.delivery.backoff import LONGEST_ASKED_S, Backoff
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.unforked import unforked
from tracebridge.errors import BackendError, BusyBackendError
from tracebridge.sink import Reader


class ReadBack:
    """Keeps one reader. That a backend cannot be read must not stop it from being sent to."""

    def __init__(self, open_reader: Callable[[], Reader], pace: Pace) -> None:
        self._open_reader = open_reader
        self._pace = pace
        self._opened: Reader | None = None
        self._backoff = Backoff()
        self._not_before = 0.0
        self.trouble = ""
        """Why the backend could not be read the last time; empty if it could."""

    def reader(self) -> Reader:
        """The reader. It is asked for before each reading, which takes a while in which others may work.

        Raises:
            MissingExtraError: the sink's packages are not installed.
        """
        self._pace.idle()
        if self._opened is None:
            with unforked():
                self._opened = self._open_reader()
        return self._opened

    @property
    def wait_s(self) -> float:
        """How long the backend must not be read yet, in seconds."""
        return max(0.0, self._not_before - time.monotonic())

    @property
    def is_time(self) -> bool:
        """Whether the backend may be read now."""
        return self.wait_s == 0

    def worked(self) -> None:
        """The backend could be read."""
        self.trouble = ""
        self._backoff.succeeded()

    def failed(self, error: BackendError) -> None:
        """The backend could not be read: leave it alone, longer each time, or as long as it asked for."""
        self.trouble = str(error)
        if isinstance(error, BusyBackendError):
            # its reader stays, for it knows how often the backend may be asked
            self._not_before = time.monotonic() + min(error.retry_after_s, LONGEST_ASKED_S)
            return
        self._not_before = time.monotonic() + self._backoff.failed()
        self.close()

    def close(self) -> None:
        """Release connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
