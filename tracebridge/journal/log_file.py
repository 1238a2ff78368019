"""Files to which any number of processes append, each of which may be killed, or find the disk full, in a line."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


CREATE_ATTEMPTS: Final = 4


def open_or_create(path: Path) -> int:
    """Open a file to read it and to append to it, making it, and the folders above it, where there is none.

    A pipe in its place holds nobody up.

    Raises:
        OSError: it cannot be opened, or its folder is deleted as fast as it is made.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    for _ in range(CREATE_ATTEMPTS):
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            # the folder above may be deleted at this moment
            with suppress(FileNotFoundError):
                path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, flags, 0o666)


def missing_newline(descriptor: int) -> bytes:
    """What ends the last line of a log, if somebody has left half of one; empty if it is whole, or there is none."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def append_lines(descriptor: int, lines: bytes, path: Path) -> None:
    """Append whole lines to the log at `path`, in one piece.

    Raises:
        OSError: they are not there whole. A missing last newline does not matter: who appends next writes it.
    """
    text = missing_newline(descriptor) + lines
    try:
        written = os.write(descriptor, text)
    except OSError as error:
        error.filename = str(path)
        raise
    if written < len(text) - 1:
        raise OSError(errno.ENOSPC, "only a part could be written", str(path))
