"""`Clock`: timestamps that never run backwards within one turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Reads the wall clock once and counts on with the monotonic one.

    A run and each of its turns have a clock of their own: the times within a turn are exact to one another,
    and a session that is open for days still follows the wall clock.
    """

    __slots__ = ("_ahead_ns", "_second")

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._ahead_ns = wall_ns() - monotonic_ns()
        self._second = self._begin_second(monotonic_ns())

    def timestamp(self, monotonic_ns: int) -> str:
        """Return a reading of the monotonic clock as ISO 8601 text in UTC, with microseconds and `Z`."""
        began_ns, text = self._second
        microsecond = (monotonic_ns - began_ns) // 1000
        if not 0 <= microsecond < 1_000_000:
            # one assignment, so that no thread sees the beginning of one second with the text of another
            began_ns, text = self._second = self._begin_second(monotonic_ns)
            microsecond = (monotonic_ns - began_ns) // 1000
        # looked up, because formatting six digits takes longer than all the rest
        return f"{text}{_DIGITS[microsecond // 1000]}{_DIGITS_AND_Z[microsecond % 1000]}"

    def _begin_second(self, monotonic_ns: int) -> tuple[int, str]:
        second, since_ns = divmod(monotonic_ns + self._ahead_ns, 1_000_000_000)
        text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return monotonic_ns - since_ns, text


_DIGITS = tuple(f"{number:03d}" for number in range(1000))
_DIGITS_AND_Z = tuple(f"{digits}Z" for digits in _DIGITS)
