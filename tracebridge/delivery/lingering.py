"""Shipping until there is nothing more to do: what the process does that `delivery: process` starts."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from tracebridge.config import Settings
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.lock import ShipperLock, process_lock
from tracebridge.delivery.pace import FullSpeed
from tracebridge.journal import layout
from tracebridge.journal.locking import is_held
from tracebridge.journal.opened import LogPosition, OpenedLog

IDLE_S: Final = 3.0
"""For how long everything must have been delivered, and nobody have written, in seconds."""
_POLL_S: Final = 0.5
_ACQUIRE_ATTEMPTS: Final = 10
_ACQUIRE_EVERY_S: Final = 0.02


def ship_until_idle(settings: Settings, stopping: threading.Event) -> bool:
    """Ship until idle, or until `stopping`; False if another process does so already.

    The process's lock is given up before it is looked for the last time whether anything is new: who writes, and then
    finds the lock held, can be sure that it will be seen.
    """
    lock = process_lock(settings.trace_dir)
    if not _acquire(lock):
        return False
    writers = Writers(settings.trace_dir)
    shipper = BackgroundShipper(settings, FullSpeed)
    shipper.start()
    try:
        while _is_wanted(shipper, writers, lock, stopping):
            lock.release()
            if not writers.look() or not _acquire(lock):
                break
    finally:
        lock.release()
        shipper.stop(settings.shutdown_timeout if stopping.is_set() else 0.0)
    return True


def _is_wanted(shipper: BackgroundShipper, writers: Writers, lock: ShipperLock, stopping: threading.Event) -> bool:
    """Wait until idle; False if there is another reason to end."""
    busy_at = time.monotonic()
    while not stopping.wait(_POLL_S):
        if not lock.is_in_place():
            # the folder was deleted: an agent that makes it anew starts another process
            return False
        if writers.look() or not shipper.catches_up(_POLL_S):
            busy_at = time.monotonic()
        elif time.monotonic() - busy_at > IDLE_S:
            return True
    return False


def _acquire(lock: ShipperLock) -> bool:
    for _ in range(_ACQUIRE_ATTEMPTS):
        if lock.acquire():
            return True
        # agents that look whether it is held keep others from taking it for some microseconds
        time.sleep(_ACQUIRE_EVERY_S)
    return False


class Writers:
    """Who writes in a trace folder: a writer holds a lock on the file of a session while it has it open."""

    def __init__(self, trace_dir: Path) -> None:
        self._trace_dir = trace_dir
        self._log = OpenedLog(trace_dir)
        self._position: LogPosition | None = None
        # any of them may have been opened before the log was begun
        self._open = self._all()

    def look(self) -> bool:
        """Whether anybody writes now, or has opened a file since the last look."""
        opened = self._log.tail(self._position)
        if opened.is_another and self._position is not None:
            self._open = self._all()
        self._position = opened.position
        self._open.update(opened.names)
        self._open = {name for name in self._open if is_held(layout.events_file(self._trace_dir / name))}
        return bool(opened.names or self._open)

    def _all(self) -> set[str]:
        return {folder.name for folder in layout.session_folders(self._trace_dir)}
