"""`OpenedLog`: which sessions writers have opened, so that shippers need not look through the folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.journal import layout
from tracebridge.journal.locking import lock
from tracebridge.journal.log_file import missing_newline, open_or_create

if TYPE_CHECKING:
    from pathlib import Path

LARGE: Final = 4 << 20
"""The size in bytes from which the log is begun anew."""

_FIRST_LINE: Final = b"log "
_ID_BYTES: Final = 16
_FIRST_LINE_SIZE: Final = len(_FIRST_LINE) + 2 * _ID_BYTES + 1


class LogPosition(msgspec.Struct, frozen=True):
    """Up to where a reader has read, and in which log: it is replaced now and then, and inodes are used again."""

    inode: tuple[int, int] = (0, 0)
    log_id: bytes = b""
    offset: int = 0


class Tail(msgspec.Struct, frozen=True):
    """What was added to the log since it was last read."""

    names: list[str]
    position: LogPosition
    is_another: bool
    """Whether this is not the log of the position: it was read from its start, and the old one may have told more."""


class OpenedLog:
    """The file `.tracebridge/opened.log`: the name of a session's folder on each line, oldest first.

    A name stands there before the first event that is written after the file was opened, and while its writer holds
    the lock of that file; it may stand there many times. The first line tells the id of the log. Whoever replaces or
    truncates the log MUST hold an exclusive `flock` on it meanwhile.
    """

    def __init__(self, trace_dir: Path, large: int = LARGE) -> None:
        self._path = layout.opened_log(trace_dir)
        self._large = large

    def append(self, folder_name: str) -> bool:
        """Add the name of a session's folder; return whether the log should be begun anew.

        Raises:
            OSError: the log cannot be written.
        """
        while True:
            with self._locked(fcntl.LOCK_SH) as descriptor:
                size = os.fstat(descriptor).st_size
                if size:
                    # of two who end the same half line, one gives a blank one
                    _write(descriptor, missing_newline(descriptor) + folder_name.encode("ascii") + b"\n")
                    return size > self._large
            with self._locked(fcntl.LOCK_EX) as descriptor:
                if not os.fstat(descriptor).st_size:
                    _begin(descriptor)

    def begin_anew(self) -> None:
        """Replace a large log by an empty one, unless somebody else has just done so.

        Raises:
            OSError: it cannot be replaced; it stays as it is.
        """
        with self._locked(fcntl.LOCK_EX) as descriptor:
            if os.fstat(descriptor).st_size <= self._large:
                return
            # nobody else replaces the log now, so what lies there was left by a process that was killed
            for left in self._path.parent.glob(f"{self._path.name}.new-*"):
                left.unlink(missing_ok=True)
            new = self._path.with_name(f"{self._path.name}.new-{os.urandom(4).hex()}")
            try:
                begun = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
                try:
                    _begin(begun)
                finally:
                    os.close(begun)
                os.replace(new, self._path)
            except OSError:
                with suppress(OSError):
                    new.unlink(missing_ok=True)
                raise

    def tail(self, position: LogPosition | None = None) -> Tail:
        """Return the names that were added after a position, all of them if it is None.

        A log that was begun anew since is read from its start. A line that is still being written is left for the
        next call. It costs what was added, whatever the size of the log.
        """
        position = position or LogPosition()
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return Tail([], position, is_another=False)
        try:
            status = os.fstat(descriptor)
            first = os.pread(descriptor, _FIRST_LINE_SIZE, 0) if stat.S_ISREG(status.st_mode) else b""
            if _FIRST_LINE.startswith(first[: len(_FIRST_LINE)]) and b"\n" not in first:
                # there is no log yet: its first line is being written
                return Tail([], position, is_another=False)
            inode, log_id = (status.st_dev, status.st_ino), _id_of(first)
            is_same = (inode, log_id) == (position.inode, position.log_id) and position.offset <= status.st_size
            offset = position.offset if is_same else 0
            added = b"".join(_chunks(descriptor, offset))
        finally:
            os.close(descriptor)
        whole = added[: added.rfind(b"\n") + 1]
        names = [line.decode("ascii", "replace") for line in whole.splitlines()]
        return Tail(
            [name for name in names if layout.is_session_folder_name(name)],
            LogPosition(inode, log_id, offset + len(whole)),
            is_another=not is_same,
        )

    @contextmanager
    def _locked(self, kind: int) -> Iterator[int]:
        """Open the log, locked as it stands at its path."""
        while True:
            descriptor = self._open()
            try:
                lock(descriptor, kind)
                # the log may have been replaced while its lock was waited for
                if _is_at(descriptor, self._path):
                    yield descriptor
                    return
            finally:
                with suppress(OSError):
                    # a process that was forked at a bad moment may hold the same open file for as long as it lives
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _open(self) -> int:
        descriptor = open_or_create(self._path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "is not a regular file", str(self._path))
        return descriptor


def _begin(descriptor: int) -> None:
    try:
        _write(descriptor, _FIRST_LINE + os.urandom(_ID_BYTES).hex().encode("ascii") + b"\n")
    except OSError:
        os.ftruncate(descriptor, 0)
        raise


def _write(descriptor: int, text: bytes) -> None:
    if os.write(descriptor, text) != len(text):
        raise OSError(errno.ENOSPC, "only a part of the line could be written")


def _id_of(first: bytes) -> bytes:
    """Return the id on the first line; a log of an older tracebridge has none."""
    return first[len(_FIRST_LINE) :].partition(b"\n")[0] if first.startswith(_FIRST_LINE) else b""


def _chunks(descriptor: int, offset: int) -> Iterator[bytes]:
    while chunk := os.pread(descriptor, 1 << 20, offset):
        offset += len(chunk)
        yield chunk


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
