"""`DeletedFile`: gives back what was written into a journal file after somebody had deleted it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.journal.locking import lock

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK: Final = 1 << 20
_LOCK_WAIT_S: Final = 2.0


class DeletedFile:
    """A journal file that has no name any more, and what was written to it from an offset on.

    Several processes may have written to it, and each of them finds it deleted at a moment of its own. Each carries
    over all the lines after its own offset that the new file does not hold yet, alone in the folder while it does,
    so every line comes over once. That needs nothing to be remembered of what a process has written.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        """Take over the open file `descriptor`; up to `offset` the file was seen in its place."""
        self._descriptor = descriptor
        self._offset = offset
        self._inode = _inode(descriptor)

    def write_into(self, descriptor: int, folder: Path) -> None:
        """Append the lines that the file `descriptor`, the new one in `folder`, does not hold.

        Raises:
            OSError: not all of them could be written. It can be tried again.
        """
        with _alone_in(folder):
            missing = self._missing_in(descriptor)
            batch = bytearray()
            for line in self._lines():
                digest = _digest(line)
                if missing[digest] > 0:
                    missing[digest] -= 1
                    batch += line + b"\n"
                    if len(batch) >= _CHUNK:
                        _write(descriptor, batch)
                        batch.clear()
            _write(descriptor, batch)

    def count_missing_in(self, descriptor: int) -> int:
        """Count the lines that the file `descriptor` does not hold; all of them if it is negative."""
        return self._missing_in(descriptor).total()

    def close(self) -> None:
        """Close the file; it is gone for good."""
        # something else of the process may have closed it, and have got the number for a file of its own
        try:
            if _inode(self._descriptor) == self._inode:
                os.close(self._descriptor)
        except OSError:
            return

    def _lines(self) -> Iterator[bytes]:
        if _inode(self._descriptor) == self._inode:
            yield from _lines(self._descriptor, self._offset)

    def _missing_in(self, descriptor: int) -> Counter[tuple[int, int]]:
        missing = Counter(map(_digest, self._lines()))
        if descriptor < 0:
            return missing
        left = missing.total()
        for line in _lines(descriptor, 0):
            if not left:
                break
            digest = _digest(line)
            if missing[digest] > 0:
                missing[digest] -= 1
                left -= 1
        return missing


def _lines(descriptor: int, offset: int) -> Iterator[bytes]:
    """Yield the lines from `offset` on that are not blank, without their newlines.

    What follows the last newline may be a line that another process is writing, unless it is whole.
    """
    # a line that began before the offset is a neighbour's
    is_within = offset > 0 and os.pread(descriptor, 1, offset - 1) != b"\n"
    rest = b""
    while chunk := os.pread(descriptor, _CHUNK, offset):
        offset += len(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line and not is_within:
                yield line
            is_within = False
    if rest and not is_within and _is_json(rest):
        yield rest


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _digest(line: bytes) -> tuple[int, int]:
    # what a cryptographic hash is made with may not be loaded yet, and now is no time to load anything
    return len(line), hash(line)


def _write(descriptor: int, lines: bytearray) -> None:
    # the rest of a half line must not be written behind what somebody else has written meanwhile
    if os.write(descriptor, lines) != len(lines):
        raise OSError(errno.ENOSPC, "only a part of the events could be written again")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Nothing else asks for it, so it is free but for a moment."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(descriptor, fcntl.LOCK_EX, _LOCK_WAIT_S)
        yield
    finally:
        os.close(descriptor)


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
