"""Going on in the background: a process that belongs to no terminal, pins no folder and bounds its own log."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

LOG_BYTES: Final = 1 << 20
"""The size at which a log is cut."""
KEPT_BYTES: Final = 1 << 18
"""How much of its end is kept then."""

_STDERR: Final = 2


def detach(log: Path) -> None:
    """Go on in a forked child; the process that called ends well, at once. To be called before any thread is started.

    The child leads a session of its own, has the root folder as its current one, reads nothing, and writes to `log`.

    Raises:
        OSError: the log cannot be opened, or the process cannot be forked.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((null, 0), (output, 1), (output, _STDERR)):
        os.dup2(ours, standard)
    os.close(null)
    os.close(output)
    # whoever started this process may have blocked some of the signals that stop it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def bound_log() -> None:
    """Cut the log to its end if it has grown too long."""
    size = os.fstat(_STDERR).st_size
    if size > LOG_BYTES:
        kept = os.pread(_STDERR, KEPT_BYTES, size - KEPT_BYTES)
        os.ftruncate(_STDERR, 0)
        os.write(_STDERR, kept[kept.find(b"\n") + 1 :])
