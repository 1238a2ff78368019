"""`ShipperLock`: one shipper a sink, over all processes on one trace folder."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from urllib.parse import quote

from tracebridge.journal import layout


def shipper_lock(trace_dir: Path, sink: str) -> ShipperLock:
    """The lock of the sink called `sink` in a trace folder."""
    return ShipperLock(layout.locks_folder(trace_dir) / f"{quote(sink, safe='')}.lock")


class ShipperLock:
    """An advisory lock that passes on when its holder dies, even while the holder's forked children live.

    `fcntl.lockf` belongs to the process and is not inherited, but any other close of the same file in this process
    would drop it, and it does not keep two threads of one process apart: so each file is opened here only, and a
    registry tells what this process holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._owner_pid = 0
        self.was_held_before = True
        """Whether the lock that was acquired had ever been held before."""

    def acquire(self) -> bool:
        """Take the lock if it is free; False if another shipper holds it."""
        path = str(self._path.absolute())
        with _HELD.guard:
            if path in _HELD.paths():
                return False
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self.was_held_before = os.fstat(descriptor).st_size > 0
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            _HELD.paths().add(path)
        self._descriptor, self._owner_pid = descriptor, os.getpid()
        return True

    def release(self) -> None:
        """Give the lock up; does nothing if it is not held by this process."""
        if self._descriptor < 0 or self._owner_pid != os.getpid():
            return
        with _HELD.guard:
            _HELD.paths().discard(str(self._path.absolute()))
            os.close(self._descriptor)
        self._descriptor = -1

    def holder(self) -> int | None:
        """The process that holds the lock, or None if it is free."""
        with _HELD.guard:
            if str(self._path.absolute()) in _HELD.paths():
                # opening the file here would close it again, and with that drop the lock
                return os.getpid()
            return _foreign_holder(self._path)


def _foreign_holder(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None


class _Held:
    """The lock files that this process holds open. A forked child holds none of its parent's locks."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self._pid = os.getpid()
        self._paths: set[str] = set()

    def paths(self) -> set[str]:
        if self._pid != os.getpid():
            self._pid, self._paths = os.getpid(), set()
        return self._paths


_HELD = _Held()
os.register_at_fork(after_in_child=lambda: setattr(_HELD, "guard", threading.Lock()))
