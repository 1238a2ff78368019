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


def process_lock(trace_dir: Path) -> ShipperLock:
    """The lock that tells whether a process of its own ships for a trace folder (`delivery: process`)."""
    # no sink can be called so
    return ShipperLock(layout.locks_folder(trace_dir) / "_process.lock")


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
        self._status: os.stat_result
        self.was_held_before = True
        """Whether the lock that was acquired had ever been held before."""

    def acquire(self) -> bool:
        """Take the lock if it is free; False if another shipper holds it.

        Raises:
            OSError: the file cannot be made.
        """
        with _HELD.guard:
            if _HELD.holds(self._path):
                return False
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_at(descriptor, self._path):
                    # deleted since it was opened: somebody else may hold the lock of a new file
                    raise BlockingIOError
                self.was_held_before = os.fstat(descriptor).st_size > 0
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except (BlockingIOError, PermissionError):
                # POSIX lets a system say either of a lock that is held
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor, self._owner_pid, self._status = descriptor, os.getpid(), os.fstat(descriptor)
            _HELD.add(self._path, self._status)
        return True

    def release(self) -> None:
        """Give the lock up; does nothing if it is not held by this process."""
        if self._descriptor < 0 or self._owner_pid != os.getpid():
            return
        with _HELD.guard:
            _HELD.discard(self._path)
            try:
                # something else of the process may have closed it, and have got the number for a file of its own
                if os.path.samestat(os.fstat(self._descriptor), self._status):
                    os.close(self._descriptor)
            except OSError:
                pass
        self._descriptor = -1

    def is_in_place(self) -> bool:
        """Whether this process holds the lock, and the file that it holds is the one that others would lock."""
        is_held = self._descriptor >= 0 and self._owner_pid == os.getpid()
        return is_held and _is_at(self._descriptor, self._path)

    def holder(self) -> int | None:
        """The process that holds the lock, or None if it is free; 0 if another one holds it that cannot be told."""
        with _HELD.guard:
            if _HELD.holds(self._path):
                # opening the file here would close it again, and with that drop the lock
                return os.getpid()
            return _foreign_holder(self._path)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _foreign_holder(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # shared, so that those who only look never take one another for a holder
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


class _Held:
    """The lock files that this process holds open. A forked child holds none of its parent's locks."""

    def __init__(self) -> None:
        # reentrant, as a signal handler of the agent may record, and look who ships, in the middle of a recording
        self.guard = threading.RLock()
        self._pid = os.getpid()
        self._files: dict[str, os.stat_result] = {}

    def holds(self, path: Path) -> bool:
        """Whether a file is held: under this path, or another that leads to it."""
        held = self._held()
        if str(path.absolute()) in held:
            return True
        try:
            status = os.stat(path)
        except OSError:
            return False
        return any(os.path.samestat(status, other) for other in held.values())

    def add(self, path: Path, status: os.stat_result) -> None:
        self._held()[str(path.absolute())] = status

    def discard(self, path: Path) -> None:
        self._held().pop(str(path.absolute()), None)

    def _held(self) -> dict[str, os.stat_result]:
        if self._pid != os.getpid():
            self._pid, self._files = os.getpid(), {}
        return self._files


_HELD = _Held()
os.register_at_fork(after_in_child=lambda: setattr(_HELD, "guard", threading.RLock()))
