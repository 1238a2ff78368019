"""Waiting for something that another thread or process brings about: asked again and again, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_S = 0.01


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Return as soon as the condition holds; fail, and say what was waited for, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(_POLL_S)
