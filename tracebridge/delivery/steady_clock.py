"""`SteadyClock`: wall clock readings that never run backwards while a process lives."""

from __future__ import annotations

import time


class SteadyClock:
    """Reads the wall clock once and counts on with the monotonic one."""

    def __init__(self) -> None:
        self._ahead_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.monotonic() + self._ahead_s
