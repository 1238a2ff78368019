"""`BackgroundShipper`: a thread per sink that ships for as long as it may, while the agent or an operator goes on."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.backlog import Left, backlog_of, left_of
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.detached import DetachedShipper
from tracebridge.delivery.housekeeping import Housekeeping
from tracebridge.delivery.lock import shipper_lock
from tracebridge.delivery.pace import Pace, Turns, Unhurried
from tracebridge.delivery.receipts import words_of
from tracebridge.delivery.shipper import Shipper
from tracebridge.delivery.state import State
from tracebridge.errors import ForkedError, MissingExtraError, PassingStateError, StateError, TracebridgeError
from tracebridge.journal import layout
from tracebridge.log import log
from tracebridge.threads import BackgroundThread

LOCK_RETRY_S: Final = 0.25
"""How often a shipper that finds its sink taken by another process asks again, in seconds."""
PROGRESS_EVERY_S: Final = 0.5
LOCK_CHECK_S: Final = 1.0
"""How often a shipper looks whether the files that it works on are still there, in seconds."""
HOPELESS_RETRY_S: Final = 300.0
"""How long a sink is left alone that cannot work before somebody installs or moves something, in seconds."""
COUNT_S: Final = 0.2
"""How long what is left may be counted at the end, beyond the time that was given for delivering it, in seconds."""
JOIN_S: Final = 0.1
"""How long threads are waited for that were asked to stop, in seconds."""
STEADY_S: Final = 10.0
"""A sink that was in trouble works again once it has for so long, or has got everything, in seconds."""


class BackgroundShipper:
    """Ships every enabled sink of a configuration, each in a thread of its own, so that none waits for another."""

    def __init__(self, settings: Settings, pace: Callable[[], Pace] | None = None) -> None:
        """`pace` makes the pace of each thread, else they take turns; in its own process a shipper need not rest."""
        turns = Turns()
        pace = pace or (lambda: Unhurried(turns))
        self._trace_dir = settings.trace_dir
        self._lanes = [_Lane(sink, settings.trace_dir, pace()) for sink in settings.enabled_sinks]
        self._housekeeping = Housekeeping(settings, pace())
        self._substitute = DetachedShipper(settings, _could_not_start)

    def start(self) -> None:
        """Begin to ship."""
        try:
            for lane in self._lanes:
                lane.start()
            self._housekeeping.start()
        except BaseException:
            for lane in self._lanes:
                lane.ask_to_stop()
            raise

    def notice(self) -> None:
        """A run begins or has ended: see to it that somebody ships what this process cannot."""
        if any(lane.is_left_to_others for lane in self._lanes):
            self._substitute.notice()

    def flush(self, timeout: float | None) -> int:
        """Wait until everything written so far is delivered, at most `timeout` seconds.

        Returns the number of events that at least one sink has not taken, as far as they could be counted in the time;
        those of spans that are still open, which cannot be sent yet, do not count. A sink that cannot work is tried
        once more, and not waited for after that.
        """
        began = time.monotonic()
        for lane in self._lanes:
            lane.ask_to_catch_up()
        if timeout is None:
            self._wait_caught_up(None)
            return max(self.pending_by_sink().values(), default=0)
        self._wait_caught_up(began + timeout - min(COUNT_S, timeout / 4))
        left = self._left(began + timeout)
        if left:
            # most of the time the count has taken no time, and then there is some to wait on
            self._wait_caught_up(began + timeout)
        return max(
            (left[lane.name].events for lane in self._lanes if lane.name in left and lane.is_behind()), default=0
        )

    def catches_up(self, timeout: float) -> bool:
        """Look for new events now; whether within `timeout` seconds all sinks have everything, but hopeless ones."""
        deadline = time.monotonic() + timeout
        for lane in self._lanes:
            lane.ask_to_catch_up()
        self._wait_caught_up(deadline)
        return all(lane.is_hopeless for lane in self._lanes if lane.is_behind())

    def stop(self, timeout: float) -> int:
        """Flush, then end the threads; log in one line what is left, which is shipped the next time.

        Returns what `flush` returns.
        """
        left = self.close(timeout)
        if left:
            counts = ", ".join(f"{count} events left for {name}" for name, count in left.items())
            log.warning("stopped with %s; they stay in %s and are delivered the next time", counts, self._trace_dir)
        return max((count.events for count in left.values()), default=0)

    def close(self, timeout: float = 0.0) -> dict[str, Left]:
        """Flush, then end the threads. Returns what is left, by sink, without those that have everything."""
        deadline = time.monotonic() + timeout
        for lane in self._lanes:
            lane.ask_to_catch_up()
        self._wait_caught_up(deadline)
        self._housekeeping.ask_to_stop()
        for lane in self._lanes:
            lane.ask_to_stop()
        left = self._left(time.monotonic() + COUNT_S)
        deadline = max(deadline, time.monotonic()) + JOIN_S
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        self._housekeeping.join(max(0.0, deadline - time.monotonic()))
        return left

    def troubles(self) -> dict[str, str]:
        """By sink, what keeps it from taking anything; sinks that work are left out."""
        return {lane.name: lane.trouble for lane in self._lanes if lane.trouble}

    def pending_by_sink(self) -> dict[str, int]:
        """By sink, how many events it has not taken, if it has not caught up since it was last asked to."""
        return {lane.name: lane.left(None).events for lane in self._lanes}

    def is_behind(self) -> bool:
        """Whether a sink has not caught up since it was last asked to."""
        return any(lane.is_behind() for lane in self._lanes)

    def pending_bytes(self) -> int:
        """How many bytes of journals some sink has not read yet, as far as is known."""
        return max((lane.pending_bytes() for lane in self._lanes), default=0)

    def _wait_caught_up(self, deadline: float | None) -> None:
        for lane in self._lanes:
            lane.wait_caught_up(deadline)

    def _left(self, deadline: float) -> dict[str, Left]:
        counts = {lane.name: lane.left(deadline) for lane in self._lanes}
        return {name: left for name, left in counts.items() if left.events}


class _Lane:
    """One sink's thread: takes the sink's lock, then ships round after round, and starts over after any trouble."""

    def __init__(self, sink: SinkSettings, trace_dir: Path, pace: Pace) -> None:
        self.name = sink.name
        self.trouble = ""
        self.is_hopeless = False
        self.is_left_to_others = False
        self._sink = sink
        self._trace_dir = trace_dir
        self._pace = pace
        self._lock = shipper_lock(trace_dir, sink.name)
        self._shipper: Shipper | None = None
        self._changed = threading.Condition()
        self._asked = 0
        self._caught_up = 0
        self._given_up = 0
        self._pending_bytes = 0
        self._pending_bytes_at = 0.0
        self._stopping = False
        self._over = False
        self._was_replaced = False
        self._backoff = Backoff()
        self._told = ""
        self._thread = BackgroundThread(target=self._run, name=f"tracebridge-{sink.name}")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        shipper = self._shipper
        if shipper is not None:
            shipper.wake()

    def ask_to_catch_up(self) -> None:
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
        self.wake()

    def wait_caught_up(self, deadline: float | None) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._asked <= max(self._caught_up, self._given_up) or self.is_hopeless or self._over,
                None if deadline is None else max(0.0, deadline - time.monotonic()),
            )

    def ask_to_stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.wake()

    def join(self, timeout: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def is_behind(self) -> bool:
        """Whether it has not caught up since it was last asked to."""
        with self._changed:
            return self._caught_up < self._asked

    def left(self, deadline: float | None) -> Left:
        """What it has not taken, as far as that can be counted until the deadline."""
        if not self.is_behind():
            return Left(0)
        return left_of(self._sink, self._trace_dir, deadline)

    def pending_bytes(self) -> int:
        return self._pending_bytes

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait_s = 0.0
                try:
                    self._ship()
                except BaseException as error:  # a plug-in that calls `sys.exit` must not end the thread
                    wait_s = self._failed(error)
                finally:
                    self._lock.release()
                self._rest(wait_s)
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _ship(self) -> None:
        """Ship until asked to stop, or until the files that it works on are not those that others see."""
        if self._was_replaced and not self._trace_dir.exists():
            # what was deleted by somebody is made again by who writes events, not by who looks for some
            self._catch_up(self._asked)
            self._rest(LOCK_CHECK_S)
            return
        if not self._wait_for_lock():
            return
        had_shipper = self._lock.was_held_before or self._was_replaced
        self._was_replaced = False
        shipper = self._shipper = Shipper(self._sink, self._trace_dir, self._pace, had_shipper=had_shipper)
        try:
            self._ship_with(shipper)
        except PassingStateError:
            if layout.state_file(self._trace_dir).exists() and self._lock.is_in_place():
                raise
            self._find_replaced()
        finally:
            self._shipper = None
            shipper.close()

    def _ship_with(self, shipper: Shipper) -> None:
        state = os.stat(layout.state_file(self._trace_dir))
        began = checked_at = time.monotonic()
        while not self._stopping:
            with self._changed:
                asked = self._asked
            round_ = shipper.round(asked)
            self.trouble = shipper.trouble
            if round_.is_done:
                self._catch_up(asked)
            if round_.is_done or time.monotonic() - began > STEADY_S:
                self._works()
            self._count_bytes(shipper)
            if time.monotonic() - checked_at > LOCK_CHECK_S:
                checked_at = time.monotonic()
                if not (self._lock.is_in_place() and _is_at(state, layout.state_file(self._trace_dir))):
                    self._find_replaced()
                    return
            if not self._stopping:
                shipper.wait(min(round_.wait_s, LOCK_CHECK_S))

    def _find_replaced(self) -> None:
        self._was_replaced = True
        log.warning("sink %s: the files in %s were replaced", self.name, self._trace_dir)

    def _wait_for_lock(self) -> bool:
        """Wait until no other process ships to this sink; False when stopped before."""
        while not self._lock.acquire():
            with self._changed:
                asked = self._asked
            if self.is_behind() and self._is_delivered_by_another():
                self._catch_up(asked)
            self._rest(LOCK_RETRY_S)
            if self._stopping:
                return False
        return True

    def _catch_up(self, asked: int) -> None:
        with self._changed:
            self._caught_up = asked
            self._changed.notify_all()

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> float:
        """Tell what has happened, once; return for how long to leave the sink alone."""
        self.trouble = str(error) if isinstance(error, TracebridgeError) else words_of(error)
        # before anything is told: whoever hears of it may record something that others must ship
        with self._changed:
            self.is_left_to_others = isinstance(error, ForkedError)
            self.is_hopeless = _is_hopeless(error)
            self._given_up = self._asked
            self._changed.notify_all()
        if self.trouble != self._told:
            self._told = self.trouble
            is_known = isinstance(error, TracebridgeError | OSError | sqlite3.Error)
            # of a defect of ours, or of a sink, the trace is what people need
            log.error("sink %s is not shipped to: %s", self.name, self.trouble, exc_info=None if is_known else error)
            self._write_down(self.trouble)
        return HOPELESS_RETRY_S if self.is_hopeless else self._backoff.failed()

    def _write_down(self, trouble: str) -> None:
        """Let `tracebridge status` tell it, in whatever process, as far as the state can be used."""
        try:
            state = State(layout.state_file(self._trace_dir), COUNT_S)
            try:
                state.set_condition(state.target(self.name, self._sink.endpoint), "failing", trouble)
            finally:
                state.close()
        except Exception as error:  # what is wrong with the sink, or with the state, was told just now
            log.debug("sink %s: its trouble could not be written down: %s", self.name, error)

    def _works(self) -> None:
        self._backoff.succeeded()
        self.is_hopeless = self.is_left_to_others = False
        if self._told:
            self._told = ""
            log.warning("sink %s is shipped to again", self.name)

    def _rest(self, seconds: float) -> None:
        """Wait; asking it to stop, or a sink that may work again to catch up, ends the wait."""
        with self._changed:
            asked = self._asked
            self._changed.wait_for(lambda: self._stopping or (self._asked > asked and not self.is_hopeless), seconds)

    def _is_delivered_by_another(self) -> bool:
        with backlog_of(self._sink, self._trace_dir) as backlog:
            return backlog.is_empty()

    def _count_bytes(self, shipper: Shipper) -> None:
        """For progress bars; it asks for the size of every watched file, so only now and then."""
        if time.monotonic() - self._pending_bytes_at > PROGRESS_EVERY_S and self.is_behind():
            self._pending_bytes = shipper.pending_bytes()
            self._pending_bytes_at = time.monotonic()


def _is_hopeless(error: BaseException) -> bool:
    """Whether trying again soon is in vain: something must be installed or moved first, or another process needed."""
    if isinstance(error, PassingStateError):
        return False
    return isinstance(error, StateError | MissingExtraError | ForkedError)


def _is_at(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return False


def _could_not_start(error: Exception) -> None:
    log.error("no other process could be started to ship: %s", error)
