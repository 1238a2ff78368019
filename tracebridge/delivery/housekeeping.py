"""`Housekeeping`: what is done once for a trace folder, beside the shipping to each sink.

It names the sinks that are switched off and still owed something, and deletes from a spool what every sink has.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Final

from tracebridge.config import Settings
from tracebridge.delivery.lock import ShipperLock
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.removal import Removal
from tracebridge.delivery.state import State
from tracebridge.delivery.switched_off import mark_switched_off, still_owed
from tracebridge.errors import TracebridgeError
from tracebridge.journal import layout
from tracebridge.journal.spooled import SpooledLog
from tracebridge.log import log
from tracebridge.threads import BackgroundThread

LONGEST_PAUSE_S: Final = 60.0
"""How long a spool is left alone between two passes, at most, in seconds."""
_SHORTEST_PAUSE_S: Final = 0.5
_LOCK_NAME: Final = "_housekeeping.lock"
"""No sink's name begins with an underscore."""


class Housekeeping:
    """A thread that does the housekeeping of one trace folder, if no other process does."""

    def __init__(self, settings: Settings, pace: Pace) -> None:
        self._settings = settings
        self._pace = pace
        self._lock = ShipperLock(layout.locks_folder(settings.trace_dir) / _LOCK_NAME)
        self._stopping = threading.Event()
        self._began_ns = time.time_ns()
        self._said = ""
        self.passes = 0
        """How often the spool was gone through."""
        self._pause_s = max(_SHORTEST_PAUSE_S, min(LONGEST_PAUSE_S, settings.spool_keep / 10))
        self._thread = BackgroundThread(target=self._run, name="tracebridge-housekeeping")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End soon."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        has_named = False
        while not self._stopping.is_set():
            try:
                # a folder that was deleted by somebody is made again by who writes events, not by who tidies up
                if (self._settings.trace_dir.exists() or not has_named) and self._lock.acquire():
                    try:
                        has_named = has_named or self._name_switched_off()
                        if self._settings.keep_journal or self._is_kept_again():
                            return
                        self._spool()
                    finally:
                        self._lock.release()
            except (TracebridgeError, OSError, sqlite3.Error) as error:
                # where nothing is to be deleted, the shippers have the same trouble and tell it
                if not self._settings.keep_journal:
                    self._say(f"{type(error).__name__}: {error}")
            except (Exception, SystemExit) as error:  # a defect, which must not end silently, nor reach the agent
                if (words := f"{type(error).__name__}: {error}") != self._said:
                    self._said = words
                    log.exception("the housekeeping of %s has failed, and is tried again", self._settings.trace_dir)
            self._pace.idle()
            self._stopping.wait(self._pause_s)

    def _name_switched_off(self) -> bool:
        state = State(layout.state_file(self._settings.trace_dir))
        try:
            mark_switched_off(state, self._settings)
            for owed in still_owed(state, self._settings):
                log.warning(
                    "sink %s (%s) is switched off and is still owed %d sessions, and %d events in flight; they are "
                    "kept: switch it on again, or give them up with `tracebridge forget %s`",
                    owed.sink,
                    owed.endpoint,
                    owed.sessions,
                    owed.events,
                    owed.sink,
                )
        finally:
            state.close()
        return True

    def _spool(self) -> None:
        """Delete what may go, pass after pass, until stopped or until the journal is kept again."""
        removal = Removal(self._settings, self._pace, SpooledLog(self._settings.trace_dir))
        try:
            while not self._is_over():
                removal.remove_older_than(self._settings.spool_keep, is_over=self._is_over)
                self._said = ""
                self.passes += 1
                self._pace.idle()
                self._stopping.wait(self._pause_s)
        finally:
            removal.close()

    def _is_over(self) -> bool:
        return self._stopping.is_set() or self._is_kept_again()

    def _is_kept_again(self) -> bool:
        """Whether the journal was switched on again since this process read its configuration."""
        try:
            return layout.kept_marker(self._settings.trace_dir).stat().st_mtime_ns >= self._began_ns
        except FileNotFoundError:
            return False

    def _say(self, trouble: str) -> None:
        if trouble != self._said:
            self._said = trouble
            log.warning("the spool %s is not tidied up: %s", self._settings.trace_dir, trouble)
