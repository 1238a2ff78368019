"""Logs to which any number of processes append, each of which may be killed, or find the disk full, in a line."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


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
