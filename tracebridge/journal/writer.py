"""`Journal`: appends events to the files of a trace folder, each by one `write(2)` of the caller's thread."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from tracebridge.event import Json
from tracebridge.fork import call_in_forked_child
from tracebridge.journal import layout
from tracebridge.journal.metadata import write_metadata
from tracebridge.journal.opened import OpenedLog
from tracebridge.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

MAX_OPEN_FILES: Final = 256
"""The most files that a journal keeps open, as a rule."""

_CHECK_NS: Final = 1_000_000_000
_LOCK_WAIT_S: Final = 0.2
_LOCK_POLL_S: Final = 0.001
_HALF_LINE_WAIT_S: Final = 0.002
_OPEN_ATTEMPTS: Final = 20
_CREATE_ATTEMPTS: Final = 4
_AT_ONCE: Final = -(1 << 63)
_LOST: Final = "The event is lost; recording goes on by itself once the cause is gone"


class Journal:
    """The journal of one trace folder, as one process writes it. Any number of processes may write at once.

    Nothing that is wrong with the folder is raised: it goes to `trouble`, and the next event tries again.
    """

    def __init__(
        self, trace_dir: Path, *, trouble: Trouble | None = None, max_open_files: int = MAX_OPEN_FILES
    ) -> None:
        self.trace_dir = trace_dir
        self.trouble = trouble or Trouble()
        self._max_open_files = max_open_files
        self._opened_log = OpenedLog(trace_dir)
        # reentrant, as all locks here: a signal handler of the agent may record in the middle of a recording
        self._lock = threading.RLock()
        self._files: weakref.WeakValueDictionary[str, JournalFile] = weakref.WeakValueDictionary()
        self._open_files: dict[JournalFile, None] = {}
        call_in_forked_child(self.after_fork)

    def append(self, session_id: str, line: bytes) -> bool:
        """Append one event, a JSON object and a newline, to a session's file; False when it is lost."""
        return self.file(session_id).append(line, time.monotonic_ns())

    def file(self, session_id: str) -> JournalFile:
        """Return the file of a session. Its first event opens it, and any later one that must."""
        with self._lock:
            file = self._files.get(session_id)
            if file is None:
                file = JournalFile(self, layout.session_folder(self.trace_dir, session_id))
                self._files[session_id] = file
            return file

    def write_metadata(self, session_id: str, run_id: str, metadata: Mapping[str, Json]) -> None:
        """Replace a session's `metadata.json`."""
        try:
            write_metadata(layout.session_folder(self.trace_dir, session_id), run_id, metadata)
        except OSError as error:
            self.trouble.report("metadata.json", error, "The events are not concerned")

    def close(self) -> None:
        """Close all files. Later events open theirs again."""
        with self._lock:
            files = list(self._open_files)
        for file in files:
            file.close()

    def announce(self, folder: Path) -> None:
        """Tell shippers that the session in `folder` is about to get events."""
        try:
            self._opened_log.append(folder.name)
        except OSError as error:
            self.trouble.report("opened.log", error, "New events are delivered only after the next full scan")

    def admit(self, file: JournalFile) -> None:
        """Count a file as open; if there are too many, close those that were idle for longest."""
        with self._lock:
            self._open_files[file] = None
            too_many = len(self._open_files) > self._max_open_files
        if too_many:
            self.close_idle(1 + self._max_open_files // 8, but=file)

    def dismiss(self, file: JournalFile) -> None:
        """Take a file out of the number of open ones."""
        with self._lock:
            self._open_files.pop(file, None)

    def close_idle(self, count: int, but: JournalFile | None = None) -> None:
        """Close the `count` files that were idle for longest; neither `but` nor any that is being written."""
        with self._lock:
            others = [file for file in self._open_files if file is not but]
        for file in sorted(others, key=attrgetter("used_ns"))[:count]:
            file.close_if_idle()

    def after_fork(self) -> None:
        """Leave the parent's files and locks to the parent; this process opens its own."""
        files = {*self._files.values(), *self._open_files}
        self._lock = threading.RLock()
        self._open_files = {}
        self.trouble.after_fork()
        for file in files:
            file.after_fork()


class JournalFile:
    """One session's file.

    Its lock is what pins it: it is held while the file is written, opened or closed, so no descriptor is ever
    closed, and perhaps given to another file, under a write. It is held across the write of this file alone.
    """

    __slots__ = (
        "__weakref__",
        "_check_ns",
        "_descriptor",
        "_folder",
        "_inode",
        "_journal",
        "_lock",
        "_path",
        "used_ns",
    )

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._folder = folder
        self._path = layout.events_file(folder)
        self._lock = threading.RLock()
        self._descriptor = -1
        self._inode = (-1, -1)
        self._check_ns = _AT_ONCE
        self.used_ns = 0

    def append(self, line: bytes, now_ns: int) -> bool:
        """Append one event, a JSON object and a newline; False when it is lost.

        `now_ns` is a reading of the monotonic clock.
        """
        with self._lock:
            self.used_ns = now_ns
            try:
                if now_ns >= self._check_ns:
                    self._make_ready(now_ns)
                if _write(self._descriptor, line) == len(line):
                    return True
                # a half line: the event goes into a line of its own, and readers pass over the half
                self._check_ns = _AT_ONCE
                again = b"\n" + line
                if _write(self._descriptor, again) == len(again):
                    return True
                raise OSError(errno.ENOSPC, "only a part of the event could be written")
            except OSError as error:
                self._check_ns = _AT_ONCE
                self._journal.trouble.report("journal", error, _LOST)
                return False

    def close(self) -> None:
        """Close the file, and let go of its lock. The next event opens it again."""
        with self._lock:
            self._close()

    def close_if_idle(self) -> None:
        """Close the file unless it is being written at this moment."""
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def after_fork(self) -> None:
        """Close the inherited descriptor, which shares its lock with the parent's."""
        self._lock = threading.RLock()
        self._close()

    def _make_ready(self, now_ns: int) -> None:
        if not self._is_open_where_it_should_be():
            self._close()
            self._open()
        self._end_half_line()
        self._check_ns = now_ns + _CHECK_NS

    def _is_open_where_it_should_be(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            return _inode(os.fstat(self._descriptor)) == self._inode == _inode(os.stat(self._path))
        except OSError:
            return False

    def _open(self) -> None:
        for _ in range(_OPEN_ATTEMPTS):
            descriptor = self._create()
            try:
                _lock_shared(descriptor)
                # whoever deletes a session holds the lock alone: now the path may name another file, or none
                inode = _inode(os.fstat(descriptor))
                if _inode(os.stat(self._path)) != inode:
                    raise FileNotFoundError
            except FileNotFoundError:
                os.close(descriptor)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            self._close()  # a signal handler may have opened it meanwhile
            self._descriptor, self._inode = descriptor, inode
            self._journal.admit(self)
            self._journal.announce(self._folder)
            return
        raise FileNotFoundError(errno.ENOENT, "is deleted as fast as it is created", str(self._path))

    def _create(self) -> int:
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            except FileNotFoundError:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                # the agent needs descriptors more than we do
                self._journal.close_idle(MAX_OPEN_FILES)
        raise OSError(errno.EMFILE, "cannot be opened", str(self._path))

    def _end_half_line(self) -> None:
        seen = -1
        while True:
            size = os.fstat(self._descriptor).st_size
            if not size or os.pread(self._descriptor, 1, size - 1) == b"\n":
                return
            if size == seen:
                break
            # a line that grows is one that another process is writing at this moment
            seen = size
            time.sleep(_HALF_LINE_WAIT_S)
        _write(self._descriptor, b"\n")

    def _close(self) -> None:
        descriptor, self._descriptor, self._check_ns = self._descriptor, -1, _AT_ONCE
        if descriptor < 0:
            return
        self._journal.dismiss(self)
        try:
            # something else of the process may have closed it, and have got the number for a file of its own
            if _inode(os.fstat(descriptor)) == self._inode:
                os.close(descriptor)
        except OSError:
            return


def _lock_shared(descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


_write = os.write
