"""`BackgroundShipper`: a thread per sink that ships for as long as it may, while the agent or an operator goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.backlog import Backlog
from tracebridge.delivery.housekeeping import Housekeeping
from tracebridge.delivery.lock import shipper_lock
from tracebridge.delivery.pace import Pace, Turns, Unhurried
from tracebridge.delivery.shipper import Shipper
from tracebridge.delivery.state import State
from tracebridge.errors import TracebridgeError
from tracebridge.journal import layout

LOCK_RETRY_S: Final = 0.25
"""How often a shipper that finds its sink taken by another process asks again, in seconds."""

PROGRESS_EVERY_S: Final = 0.5
Answer = TypeVar("Answer")

log = logging.getLogger("tracebridge")


class BackgroundShipper:
    """Ships every enabled sink of a configuration, each in a thread of its own, so that none waits for another."""

    def __init__(self, settings: Settings, pace: Callable[[], Pace] | None = None) -> None:
        """`pace` makes the pace of each thread, else they take turns; in its own process a shipper need not rest."""
        turns = Turns()
        pace = pace or (lambda: Unhurried(turns))
        self._lanes = [_Lane(sink, settings.trace_dir, pace()) for sink in settings.enabled_sinks]
        self._housekeeping = Housekeeping(settings, pace())

    def start(self) -> None:
        """Begin to ship."""
        for lane in self._lanes:
            lane.start()
        self._housekeeping.start()

    def wake(self) -> None:
        """Look for new events now."""
        for lane in self._lanes:
            lane.wake()

    def flush(self, timeout: float | None) -> int:
        """Wait until everything written so far is delivered, at most `timeout` seconds.

        Returns the number of events that at least one sink has not taken; those of spans that are still open, which
        cannot be sent yet, do not count.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for lane in self._lanes:
            lane.ask_to_catch_up()
        for lane in self._lanes:
            lane.wait_caught_up(deadline)
        return max(self.pending_by_sink().values(), default=0)

    def stop(self, timeout: float) -> int:
        """Flush, then end the threads. Returns what `flush` returns; what is left is shipped the next time."""
        deadline = time.monotonic() + timeout
        left = self.flush(timeout)
        self._housekeeping.ask_to_stop()
        for lane in self._lanes:
            lane.ask_to_stop()
        for lane in self._lanes:
            lane.join(max(0.1, deadline - time.monotonic()))
        self._housekeeping.join(max(0.1, deadline - time.monotonic()))
        return left

    def troubles(self) -> dict[str, str]:
        """By sink, what keeps it from taking anything; sinks that work are left out."""
        return {lane.name: lane.trouble for lane in self._lanes if lane.trouble}

    def pending_by_sink(self) -> dict[str, int]:
        """By sink, how many events it has not taken, if it has not caught up since it was last asked to."""
        return {lane.name: lane.pending_events() for lane in self._lanes}

    def is_alive(self) -> bool:
        """Whether any sink is still being shipped to, or waited for."""
        return any(lane.is_alive() for lane in self._lanes)

    def pending_bytes(self) -> int:
        """How many bytes of journals some sink has not read yet, as far as is known."""
        return max((lane.pending_bytes() for lane in self._lanes), default=0)


class _Lane:
    """One sink's thread: takes the sink's lock, then ships round after round."""

    def __init__(self, sink: SinkSettings, trace_dir: Path, pace: Pace) -> None:
        self.name = sink.name
        self.trouble = ""
        self._sink = sink
        self._trace_dir = trace_dir
        self._pace = pace
        self._lock = shipper_lock(trace_dir, sink.name)
        self._shipper: Shipper | None = None
        self._changed = threading.Condition()
        self._asked = 0
        self._caught_up = 0
        self._pending_bytes = 0
        self._pending_bytes_at = 0.0
        self._stopping = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=f"tracebridge-{sink.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        if self._shipper is not None:
            self._shipper.wake()

    def ask_to_catch_up(self) -> None:
        with self._changed:
            self._asked += 1
        self.wake()

    def wait_caught_up(self, deadline: float | None) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._caught_up >= self._asked or self._over,
                None if deadline is None else max(0.0, deadline - time.monotonic()),
            )

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self.wake()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def pending_events(self) -> int:
        if self._has_caught_up():
            return 0
        # it may be a single event that is on its way right now, which is already neither unread nor in flight
        return max(1, self._asked_of_backlog(Backlog.pending_events))

    def pending_bytes(self) -> int:
        return self._pending_bytes

    def _run(self) -> None:
        try:
            self._ship()
        except TracebridgeError as error:
            self.trouble = str(error)
            log.error("sink %s is not shipped to: %s", self.name, error)
        except Exception as error:  # a defect of ours must not end silently, nor reach the agent
            self.trouble = f"{type(error).__name__}: {error}"
            log.exception("sink %s is not shipped to any more", self.name)
        finally:
            self._lock.release()
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _ship(self) -> None:
        if not self._wait_for_lock():
            return
        shipper = self._shipper = Shipper(
            self._sink, self._trace_dir, self._pace, had_shipper=self._lock.was_held_before
        )
        try:
            while not self._stopping.is_set():
                with self._changed:
                    asked = self._asked
                round_ = shipper.round(asked)
                self.trouble = shipper.trouble
                if round_.is_done:
                    self._catch_up(asked)
                self._count_bytes(shipper)
                if not self._stopping.is_set():
                    shipper.wait(round_.wait_s)
        finally:
            self._shipper = None
            shipper.close()

    def _wait_for_lock(self) -> bool:
        """Wait until no other process ships to this sink; False when stopped before."""
        while not self._lock.acquire():
            with self._changed:
                asked = self._asked
            if not self._has_caught_up() and self._asked_of_backlog(Backlog.is_empty):
                self._catch_up(asked)
            if self._stopping.wait(LOCK_RETRY_S):
                return False
        return True

    def _has_caught_up(self) -> bool:
        with self._changed:
            return self._caught_up >= self._asked

    def _catch_up(self, asked: int) -> None:
        with self._changed:
            self._caught_up = asked
            self._changed.notify_all()

    def _asked_of_backlog(self, question: Callable[[Backlog], Answer]) -> Answer:
        assert self._sink.sink_type is not None, "only complete sinks are enabled"
        assert self._sink.settings is not None, "only complete sinks are enabled"
        state = State(layout.state_file(self._trace_dir))
        try:
            state.folder(self._trace_dir)
            target = state.target(self._sink.name, self._sink.sink_type.endpoint(self._sink.settings))
            return question(Backlog(state, target, self._sink.policy))
        finally:
            state.close()

    def _count_bytes(self, shipper: Shipper) -> None:
        """For progress bars; it asks for the size of every watched file, so only now and then."""
        if time.monotonic() - self._pending_bytes_at > PROGRESS_EVERY_S and not self._has_caught_up():
            self._pending_bytes = shipper.pending_bytes()
            self._pending_bytes_at = time.monotonic()
