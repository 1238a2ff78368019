"""`Pace`: how shipper threads share the interpreter with their process, and how often they may ask a backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

SLICE_S: Final = 50e-6
REST_S: Final = 100e-6
_TURN_WAIT_S: Final = 5e-3


class Pace(Protocol):
    """Told by a thread of what it does, so that it can be made to wait."""

    def tick(self) -> None:
        """Between two small pieces of work: rest if it is time to."""
        ...

    def idle(self) -> None:
        """Before waiting for something: others may work meanwhile."""
        ...

    def request_wait_s(self) -> float:
        """How long the next request must be put off, in seconds; 0 if it may be sent now."""
        ...

    def request(self) -> None:
        """A request is being sent."""
        ...


class Turns:
    """What the paces of all shipper threads of a process share: one of them works at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Unhurried:
    """Gives the interpreter back after each slice of work, and takes turns with the other shippers of the process.

    A thread that wants the interpreter while another one computes waits 5 ms for it, each time. The agent gives it up
    in every write, so it must not meet a shipper that computes for longer than a slice, nor one after the other.
    Sleeping, however shortly, lets the waiting thread go first; only yielding would not.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._has_turn = False
        self._began = 0.0

    def tick(self) -> None:
        """Rest if this slice of work is over, then wait for a turn."""
        if self._has_turn and time.perf_counter() - self._began < SLICE_S:
            return
        if self._has_turn:
            # the turn is kept meanwhile, so that it is the agent's time and not the next shipper's
            time.sleep(REST_S)
            self.idle()
        # a shipper that hangs in the middle of its turn must not stop the others
        self._has_turn = self._turns.lock.acquire(timeout=_TURN_WAIT_S)
        self._began = time.perf_counter()

    def idle(self) -> None:
        """Pass the turn on."""
        if self._has_turn:
            self._has_turn = False
            self._turns.lock.release()

    def request_wait_s(self) -> float:
        """Never."""
        return 0.0

    def request(self) -> None:
        """Do nothing."""


class FullSpeed:
    """Never rests: for a process that does nothing but ship. It may be held to so many requests a second."""

    def __init__(self, max_rps: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_rps`, above 0, may be a fraction. `clock` gives seconds."""
        self._every_s = 1 / max_rps if max_rps else 0.0
        self._clock = clock
        self._not_before = float("-inf")

    def tick(self) -> None:
        """Do nothing."""

    def idle(self) -> None:
        """Do nothing."""

    def request_wait_s(self) -> float:
        """Until a whole interval has passed since the last one: what was not used is not made up for."""
        return max(0.0, self._not_before - self._clock()) if self._every_s else 0.0

    def request(self) -> None:
        """Begin an interval."""
        self._not_before = self._clock() + self._every_s
