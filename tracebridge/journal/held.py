"""Whether a writer has a session's journal open."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def is_held(events: Path | str) -> bool:
    """Whether a writer has the journal open; False if there is none. Writers hold a shared lock meanwhile."""
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
