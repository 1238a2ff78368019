"""How often the server may be asked: nobody says so before it was asked too often."""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 61.0
"""LangFuse counts requests by the minute; the rest is for requests that travel faster than those before them."""
_LEAST_GUESS: Final = 10
"""No plan allows less; a guess is needed where a refusal does not say how many requests are allowed."""


class RequestRate:
    """Keeps within the limit that the server named when it refused a request. Until then there is none.

    Times are seconds of one clock that never goes back.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._asked_at: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        """How long to wait before the next request."""
        self._forget(now)
        if self._limit is None or len(self._asked_at) < self._limit:
            return 0.0
        return self._asked_at[-self._limit] + _WINDOW_S - now

    def asked(self, now: float) -> None:
        """A request was sent."""
        self._asked_at.append(now)

    def refused(self, now: float, limit: int | None) -> None:
        """The last request was one too many; `limit` is how many a minute the server says it takes."""
        self._forget(now)
        self._limit = limit or max(len(self._asked_at) - 1, _LEAST_GUESS)

    def _forget(self, now: float) -> None:
        while self._asked_at and self._asked_at[0] + _WINDOW_S <= now:
            self._asked_at.popleft()
