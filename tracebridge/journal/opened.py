"""`OpenedLog`: which sessions writers have opened, so that shippers need not look through the folder."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from tracebridge.journal import layout

if TYPE_CHECKING:
    from pathlib import Path


class OpenedLog:
    """The file `.tracebridge/opened.log`: the name of a session's folder on each line, oldest first.

    A name stands there before the first event that is written after the file was opened, and may stand there
    many times. Whoever replaces or truncates the log MUST hold an exclusive `flock` on it meanwhile.
    """

    def __init__(self, trace_dir: Path) -> None:
        self._path = layout.opened_log(trace_dir)

    def append(self, folder_name: str) -> None:
        """Add the name of a session's folder.

        Raises:
            OSError: the log cannot be written.
        """
        line = folder_name.encode("ascii") + b"\n"
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                # the log may have been replaced while its lock was waited for
                if _is_at(descriptor, self._path):
                    os.write(descriptor, line)
                    return
            finally:
                os.close(descriptor)

    def tail(self, offset: int = 0) -> tuple[list[str], int]:
        """Return the names that were added after byte `offset`, and the offset to go on from.

        A log that is shorter than `offset` was begun anew, and is read from its start. A line that is still
        being written is left for the next call.
        """
        try:
            with self._path.open("rb") as log:
                if log.seek(0, os.SEEK_END) < offset:
                    offset = 0
                log.seek(offset)
                added = log.read()
        except FileNotFoundError:
            return [], 0
        whole = added[: added.rfind(b"\n") + 1]
        names = [line.decode("ascii", "replace") for line in whole.splitlines()]
        return [name for name in names if layout.is_session_folder_name(name)], offset + len(whole)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            return os.open(self._path, flags, 0o666)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o666)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
