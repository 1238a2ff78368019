"""`Journal`: appends events to the files of a trace folder, each by one `write(2)` of the caller's thread."""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import resource
import stat
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeVar

from tracebridge.event import Json
from tracebridge.fork import call_in_forked_child
from tracebridge.interruption import is_interruption
from tracebridge.journal import layout
from tracebridge.journal.deleted import DeletedFile
from tracebridge.journal.locking import lock
from tracebridge.journal.log_file import CREATE_ATTEMPTS, open_or_create
from tracebridge.journal.metadata import write_metadata
from tracebridge.journal.opened import OpenedLog
from tracebridge.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

Result = TypeVar("Result")

MAX_OPEN_FILES: Final = 256
"""The most files that a journal keeps open, as a rule; fewer where the agent may not have many."""

_CHECK_NS: Final = 1_000_000_000
_HALF_LINE_WAIT_S: Final = 0.002
_OPEN_ATTEMPTS: Final = 20
_AT_ONCE: Final = -(1 << 63)
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_LOST: Final = "The event is lost; recording goes on by itself once the cause is gone"
_LOST_WITH_THE_FILE: Final = "An event is lost, whose file somebody deleted while it was written"


class Journal:
    """The journal of one trace folder, as one process writes it. Any number of processes may write at once.

    Nothing that is wrong with the folder is raised: it goes to `trouble`, and the next event tries again.
    """

    def __init__(self, trace_dir: Path, *, trouble: Trouble | None = None, max_open_files: int | None = None) -> None:
        self.trace_dir = trace_dir
        self.trouble = trouble or Trouble()
        self._max_open_files = max_open_files or _fair_share()
        self._opened_log = OpenedLog(trace_dir)
        # reentrant, as all locks here: a signal handler of the agent may record in the middle of a recording
        self._lock = threading.RLock()
        self._files: weakref.WeakValueDictionary[str, JournalFile] = weakref.WeakValueDictionary()
        self._open_files: dict[JournalFile, None] = {}
        self._lost: dict[str, int] = {}
        self._is_folder_checked = False
        self._closes_at_exit = False
        call_in_forked_child(self.after_fork)

    def check_folder(self) -> None:
        """Refuse a trace folder on a file system that a journal cannot rely on.

        A folder that was found to be good is not looked at again; one that is refused is, so that recording begins
        once it is put right.

        Raises:
            UnsupportedFileSystemError: says which file system it is.
        """
        if not self._is_folder_checked:
            # imported here: an agent that is started need not wait for it
            from tracebridge.journal.file_system import check_file_system

            check_file_system(self.trace_dir)
            self._is_folder_checked = True

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
        file = self.file(session_id)
        # it goes into the folder that the events are in, also if somebody has just deleted that
        file.make_sure()
        folder = layout.session_folder(self.trace_dir, session_id)
        try:
            self._with_descriptors(file, lambda: write_metadata(folder, run_id, metadata))
        except OSError as error:
            self.trouble.report("metadata.json", error, "The events are not concerned")

    def close(self) -> None:
        """Close all files. Later events open theirs again."""
        with self._lock:
            files = list(self._open_files)
        for file in files:
            file.close()
        self.tell_losses()

    @property
    def has_losses_to_tell(self) -> bool:
        """Whether events were lost that are not written down as such."""
        return bool(self._lost)

    def lose(self, error: OSError, consequence: str, count: int = 1) -> None:
        """Report that events could not be written."""
        kind = self.trouble.report("journal", error, consequence, count)
        with self._lock:
            self._lost[kind] = self._lost.get(kind, 0) + count

    def tell_losses(self) -> None:
        """Write down how many events were lost, for others to see, if that is possible now."""
        with self._lock:
            lost, self._lost = self._lost, {}
        if not lost:
            return
        try:
            # imported here: an agent that loses nothing need not load it
            from tracebridge.journal.lost import write_down

            write_down(self.trace_dir, lost)
        except OSError as error:
            with self._lock:
                self._lost = {kind: lost.get(kind, 0) + self._lost.get(kind, 0) for kind in {**lost, **self._lost}}
            if is_interruption(error):
                raise

    def announce(self, folder: Path, file: JournalFile) -> bool:
        """Tell shippers that the session in `folder` is about to get events; False if they cannot be told now."""
        try:
            is_large = self._with_descriptors(file, lambda: self._opened_log.append(folder.name))
        except OSError as error:
            self.trouble.report("opened.log", error, "It is tried again; until then new events may not be delivered")
            return False
        if is_large:
            try:
                self._opened_log.begin_anew()
            except OSError as error:
                self.trouble.report("opened.log", error, "It grows on; delivery is not concerned")
        return True

    def admit(self, file: JournalFile) -> None:
        """Count a file as open; if there are too many, close those that were idle for longest."""
        with self._lock:
            if not self._closes_at_exit:
                self._closes_at_exit = True
                atexit.register(_close, weakref.ref(self))
            self._open_files[file] = None
            too_many = len(self._open_files) > self._max_open_files
        if too_many:
            self.close_idle(1 + self._max_open_files // 8, but=file)

    def dismiss(self, file: JournalFile) -> None:
        """Take a file out of the number of open ones."""
        with self._lock:
            self._open_files.pop(file, None)

    def close_idle(self, count: int, but: JournalFile, *, frees_descriptors: bool = False) -> None:
        """Close the `count` files that were idle for longest; neither `but` nor any that is being written.

        With `frees_descriptors`, those stay open whose closing would first need another descriptor.
        """
        with self._lock:
            others = [file for file in self._open_files if file is not but]
        for file in sorted(others, key=attrgetter("used_ns"))[:count]:
            file.close_if_idle(frees_descriptor=frees_descriptors)

    def _with_descriptors(self, file: JournalFile, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            self.close_idle(MAX_OPEN_FILES, but=file, frees_descriptors=True)
            return work()

    def after_fork(self) -> None:
        """Leave the parent's files and locks to the parent; this process opens its own."""
        files = {*self._files.values(), *self._open_files}
        self._lock = threading.RLock()
        self._open_files = {}
        self._lost = {}
        self.trouble.after_fork()
        for file in files:
            file.after_fork()


class JournalFile:
    """One session's file.

    Its lock is what pins it: it is held while the file is written, opened or closed, so no descriptor is ever
    closed, and perhaps given to another file, under a write. It is held across the write of this file alone.

    A file that somebody deletes, without asking for its lock, goes on taking what is written, and nobody will ever
    read it. So it is looked for in its place now and then, and when it is closed. What was written to it since it
    was last seen there is read out of it, and written again into the next one.
    """

    __slots__ = (
        "__weakref__",
        "_check_ns",
        "_deleted",
        "_descriptor",
        "_folder",
        "_inode",
        "_is_announced",
        "_journal",
        "_lock",
        "_path",
        "_seen_size",
        "used_ns",
    )

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._folder = folder
        self._path = layout.events_file(folder)
        self._lock = threading.RLock()
        self._descriptor = -1
        self._inode = (-1, -1)
        self._is_announced = False
        self._check_ns = _AT_ONCE
        self._seen_size = 0
        self._deleted: DeletedFile | None = None
        self.used_ns = 0

    def __del__(self) -> None:
        # of a tracer that nobody uses any more
        self._finish()

    def append(self, line: bytes, now_ns: int) -> bool:
        """Append one event, a JSON object and a newline; False when it is lost.

        `now_ns` is a reading of the monotonic clock.
        """
        with self._lock:
            self.used_ns = now_ns
            try:
                if now_ns >= self._check_ns:
                    self._make_ready(now_ns)
                written = _write(self._descriptor, line)
                if written != len(line):
                    self._write_the_rest(line, written)
                if self._journal.has_losses_to_tell:
                    self._journal.tell_losses()
                return True
            except OSError as error:
                self._check_ns = _AT_ONCE
                if error.errno == errno.EBADF and self._descriptor >= 0:
                    # somebody closed it, as daemons do with all that is open when they begin
                    self._close()
                    return self.append(line, now_ns)
                self._journal.lose(error, _LOST)
                return False

    def make_sure(self) -> None:
        """Make sure that what was written is where readers look for it, if the file is open."""
        with self._lock:
            self._make_sure()

    def close(self) -> None:
        """Close the file, and let go of its lock. The next event opens it again."""
        with self._lock:
            self._finish()

    def close_if_idle(self, *, frees_descriptor: bool = False) -> None:
        """Close the file unless it is being written at this moment.

        With `frees_descriptor`, one whose closing would first need another descriptor stays open.
        """
        if self._lock.acquire(blocking=False):
            try:
                if not (frees_descriptor and self._has_to_write_again()):
                    self._finish()
            finally:
                self._lock.release()

    def after_fork(self) -> None:
        """Close the inherited descriptor, which shares its lock with the parent's."""
        self._lock = threading.RLock()
        self._give_up_deleted()
        self._close(keep_lock=True)

    def _write_the_rest(self, line: bytes, written: int) -> None:
        self._check_ns = _AT_ONCE
        if written >= len(line) - 1:
            # only the newline is missing, and is written before the next event
            return
        # a half line: the event goes into a line of its own, and readers pass over the half
        again = b"\n" + line
        if _write(self._descriptor, again) < len(again) - 1:
            raise OSError(errno.ENOSPC, "only a part of the event could be written")

    def _make_ready(self, now_ns: int) -> None:
        self._settle_in()
        self._check_ns = now_ns + _CHECK_NS

    def _settle_in(self, *, stays_open: bool = True) -> None:
        """Open the file in its place if it is not, and write into it what waits for that."""
        for attempts_left in reversed(range(_OPEN_ATTEMPTS)):
            if not self._is_open_where_it_should_be():
                self._leave()
                self._open()
                if stays_open:
                    self._journal.admit(self)
            try:
                self._prepare()
                return
            except FileNotFoundError:
                # the folder was deleted once more, before what had been deleted with it was written again
                if not attempts_left:
                    raise

    def _prepare(self) -> None:
        if not self._is_announced:
            self._is_announced = self._journal.announce(self._folder, self)
        self._seen_size = self._end_half_line()
        if self._deleted is not None:
            self._write_again(self._deleted)

    def _make_sure(self) -> None:
        if self._is_deleted():
            try:
                self._make_ready(_AT_ONCE)
            except OSError as error:
                if is_interruption(error):
                    raise
                # nothing is lost yet: the next event, or closing the file, tries again
                self._check_ns = _AT_ONCE

    def _finish(self) -> None:
        if self._has_to_write_again():
            try:
                # it is closed at once, so others need not be closed for it
                self._settle_in(stays_open=False)
            except OSError as error:
                self._journal.lose(error, _LOST_WITH_THE_FILE, self._count_lost())
        self._give_up_deleted()
        self._close()
        self._journal.dismiss(self)

    def _has_to_write_again(self) -> bool:
        return self._deleted is not None or self._is_deleted()

    def _count_lost(self) -> int:
        try:
            return self._deleted.count_missing_in(self._descriptor) if self._deleted is not None else 0
        except OSError as error:
            if is_interruption(error):
                raise
            # cannot be told; one at least
            return 1

    def _write_again(self, deleted: DeletedFile) -> None:
        # a signal handler of the agent that records in the middle must not write the same again
        self._deleted = None
        try:
            deleted.write_into(self._descriptor, self._folder)
        except BaseException:
            self._deleted = deleted
            raise
        deleted.close()

    def _give_up_deleted(self) -> None:
        deleted, self._deleted = self._deleted, None
        if deleted is not None:
            deleted.close()

    def _is_open_where_it_should_be(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            return _inode(os.fstat(self._descriptor)) == self._inode == _inode(os.stat(self._path))
        except OSError as error:
            if is_interruption(error):
                raise
            return False

    def _leave(self) -> None:
        """Close a file that is not in its place any more, unless it is deleted and has taken events with it."""
        # what was moved away is still there to be read; and while an earlier file's events wait, no others are written
        if self._deleted is None and self._is_deleted():
            self._deleted = DeletedFile(self._descriptor, self._seen_size)
            self._descriptor = -1
        self._close()

    def _is_deleted(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            if is_interruption(error):
                raise
            return False
        return _inode(status) == self._inode and status.st_nlink == 0 and status.st_size > self._seen_size

    def _open(self) -> None:
        for _ in range(_OPEN_ATTEMPTS):
            descriptor = self._create()
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "is not a regular file", str(self._path))
                lock(descriptor, fcntl.LOCK_SH)
                # whoever deletes a session holds the lock alone: now the path may name another file, or none
                inode = _inode(status)
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
            self._is_announced = False
            return
        raise FileNotFoundError(errno.ENOENT, "is deleted as fast as it is created", str(self._path))

    def _create(self) -> int:
        for _ in range(CREATE_ATTEMPTS):
            try:
                return open_or_create(self._path)
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                # the agent needs descriptors more than we do
                self._journal.close_idle(MAX_OPEN_FILES, but=self, frees_descriptors=True)
        return open_or_create(self._path)

    def _end_half_line(self) -> int:
        """Return the size of the file, of which the last line is whole then."""
        seen = -1
        while True:
            size = os.fstat(self._descriptor).st_size
            if not size or os.pread(self._descriptor, 1, size - 1) == b"\n":
                return size
            if size == seen:
                break
            # a line that grows is one that another process is writing at this moment
            seen = size
            time.sleep(_HALF_LINE_WAIT_S)
        _write(self._descriptor, b"\n")
        return size + 1

    def _close(self, *, keep_lock: bool = False) -> None:
        descriptor, self._descriptor, self._check_ns = self._descriptor, -1, _AT_ONCE
        if descriptor < 0:
            return
        self._journal.dismiss(self)
        try:
            # something else of the process may have closed it, and have got the number for a file of its own
            if _inode(os.fstat(descriptor)) != self._inode:
                return
            if not keep_lock:
                # a process that was forked at a bad moment may hold the same open file for as long as it lives
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        except OSError as error:
            if is_interruption(error):
                raise
            return


def _fair_share() -> int:
    """Return how many files a journal may keep open, of all that the process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else max(1, min(MAX_OPEN_FILES, soft // 4))


def _close(journal: weakref.ref[Journal]) -> None:
    alive = journal()
    if alive is not None:
        alive.close()


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


_write = os.write
