"""The three streams that a program is started with: they may be missing, or know few characters."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_STANDARD_ERROR: Final = 2


def prepare() -> None:
    """See to it that a command can read and write, whatever it was started with.

    Where a stream is closed, as by `>&-` or a daemon's parent, nothing is read and nobody reads; a character that an
    encoding other than UTF-8 does not have is written as its number.
    """
    _replace_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _replace_what_is_closed() -> None:
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    # the lowest numbers that are free: no other file may come to stand where output goes
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)
    # never closed: they live as long as the process
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
