"""Waiting for something that another thread or process brings about: asked again and again, up to a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_POLL_S = 0.01
_GRACE_S = 3.0


def grace_s() -> float:
    """How much longer than it should something may take that is tested to end, and not to be fast.

    More where processes have to queue for a processor.
    """
    return _GRACE_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(condition: Callable[[], bool], what: str, seconds: float = 50.0) -> None:
    """Return as soon as the condition holds; fail, and say what was waited for, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(_POLL_S)
