"""Ids of new runs, traces and spans: random, in the forms of the W3C trace context."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

_STOCK: Final = 64
_INVALID: Final = "0" * 16


class IdSource:
    """Gives ids that no other call, thread or process gets.

    Span ids are cut from a stock, because one system call for each would cost as much as the rest of an
    event. A process that forks MUST call `forget` in the child, else both would hand out the same stock.
    """

    __slots__ = ("_random_bytes", "_stock")

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._stock: list[str] = []

    def span_id(self) -> str:
        """Return 16 lower-case hex digits, not all zero."""
        try:
            return self._stock.pop()
        except IndexError:
            return self._restock()

    def trace_id(self) -> str:
        """Return 32 lower-case hex digits, not all zero."""
        return self.span_id() + self.span_id()

    def run_id(self) -> str:
        """Return a run id in the original's form: `run-` and 12 hex digits."""
        return f"run-{self.span_id()[:12]}"

    def session_id(self) -> str:
        """Return an id for a session that was given none."""
        return f"session-{self.span_id()}"

    def forget(self) -> None:
        """Throw the stock away."""
        self._stock = []

    def _restock(self) -> str:
        while True:
            digits = self._random_bytes(8 * _STOCK).hex(" ", 8)
            if _INVALID not in digits:
                break
        fresh = digits.split(" ")
        mine = fresh.pop()
        # another thread may have restocked meanwhile; replacing its stock only wastes random numbers
        self._stock = fresh
        return mine
