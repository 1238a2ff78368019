"""The `flock`s of a trace folder: writers hold a shared one on each journal that they have open."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LOCK_WAIT_S: Final = 0.2
"""How long the agent waits for a lock, in seconds: whoever holds it may have been stopped, and the agent must go on."""
_POLL_S: Final = 0.001


def lock(descriptor: int, kind: int, wait_s: float = LOCK_WAIT_S) -> None:
    """Take a lock of a kind, `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.

    Raises:
        BlockingIOError: it was held by others for `wait_s`.
        OSError: the file cannot be locked.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def is_held(events: Path | str) -> bool:
    """Whether a writer has the journal open; False if there is none."""
    try:
        # a pipe in its place would hold us up for ever
        descriptor = os.open(events, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
