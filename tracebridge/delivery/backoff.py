"""`Backoff`: how long to leave a failing backend alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracebridge.jitter import JITTER

FIRST_S: Final = 0.5
LONGEST_S: Final = 60.0
LONGEST_ASKED_S: Final = 3600.0
"""The longest wait that a backend's Retry-After is obeyed for, in seconds."""


class Backoff:
    """Waits that double from try to try up to a cap, each drawn at random from its upper half."""

    def __init__(
        self, draw: Callable[[], float] = JITTER.random, *, first_s: float = FIRST_S, longest_s: float = LONGEST_S
    ) -> None:
        """Begin with short waits.

        Args:
            draw: returns a number from 0 to 1.
            first_s: the longest that the first wait may be, in seconds.
            longest_s: the cap, in seconds.
        """
        self._draw = draw
        self.first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def failed(self, asked_s: float | None = None) -> float:
        """The seconds to wait after one more failure; never less than what the backend `asked_s` for."""
        longest = min(self._longest_s, self.first_s * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        drawn = longest * (0.5 + 0.5 * self._draw())
        return max(drawn, min(asked_s or 0.0, LONGEST_ASKED_S))

    def succeeded(self) -> None:
        """Start over with short waits."""
        self._failures = 0
