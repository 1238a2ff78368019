"""`Health`: how a backend is doing, as its answers tell, and how long it is left alone for that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tracebridge.delivery.backoff import LONGEST_ASKED_S, Backoff
from tracebridge.log import log

PAUSED_RECHECK_S: Final = 300.0
"""How long a sink whose credentials were refused is left alone, in seconds."""
_MOST_WARNINGS: Final = 100


class Health:
    """What is known of one backend's health. Says each change once: to the log, and to the state for others to see."""

    def __init__(self, name: str, backoff: Backoff, write_down: Callable[[str, str, float], None]) -> None:
        """`write_down` is told the state, its detail and how long it lasts at least, in seconds, when they change."""
        self._name = name
        self._backoff = backoff
        self._write_down = write_down
        self._not_before = 0.0
        self._accepted_at = 0.0
        self._said = ("", "")
        self._warnings: set[str] = set()
        self.trouble = ""
        """What keeps the backend from taking anything; empty while it works."""
        self.is_trusted = False
        """Whether it has taken something since there was trouble, so that several requests may be out at once."""

    @property
    def wait_s(self) -> float:
        """How long to leave it alone, in seconds."""
        return max(0.0, self._not_before - time.monotonic())

    @property
    def is_held_back(self) -> bool:
        """Whether it is left alone now."""
        return time.monotonic() < self._not_before

    def has_served_since(self, moment: float) -> bool:
        """Whether it has taken a request since then, by the monotonic clock."""
        return self._accepted_at > moment

    def accepted(self) -> None:
        """It has taken a request."""
        self._accepted_at = time.monotonic()
        self.answered()
        self.is_trusted = not self.is_held_back

    def answered(self) -> None:
        """It works, though it may have refused what it was sent."""
        self._backoff.succeeded()
        if self.is_held_back:
            # it was asked before the trouble came, and is asked no more before that is over
            return
        if self.trouble:
            log.warning("sink %s: works again", self._name)
            self.trouble = ""
        self.say("shipping")

    def failed(self, why: str, asked_s: float | None = None) -> None:
        """It is in trouble; `asked_s` is how long it wants to be left alone, in seconds."""
        # several requests that were out together and fail together are one failure
        seconds = (asked_s or 0.0) if self.is_held_back else self._backoff.failed(asked_s)
        self._hold_back(min(seconds, LONGEST_ASKED_S), "backing off", why)

    def refuses_credentials(self, why: str) -> None:
        """It takes nothing before somebody has corrected something."""
        self._hold_back(PAUSED_RECHECK_S, "paused", why)

    def warns(self, text: str) -> None:
        """It took a request, and had something to say about it."""
        if text and text not in self._warnings and len(self._warnings) < _MOST_WARNINGS:
            self._warnings.add(text)
            log.warning("sink %s: the backend says: %s", self._name, text)

    def say(self, state: str, detail: str = "") -> None:
        """Write down how it is doing, if that has changed."""
        if self._said != (state, detail):
            self._said = (state, detail)
            self._write_down(state, detail, 0.0)

    def _hold_back(self, seconds: float, state: str, why: str) -> None:
        self.is_trusted = False
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        if self.trouble != why:
            log.warning("sink %s: %s: %s", self._name, state, why)
        self.trouble = why
        self._said = (state, why)
        self._write_down(state, why, self.wait_s)
