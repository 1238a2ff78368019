"""`unforked`: a block in which the process does not fork, for a thread of ours that imports what may take long.

A child that is forked in the middle has half of the modules: whoever imports one of them there, the agent as well,
fails, or waits for ever for a thread that does not exist.
"""

from __future__ import annotations

# before the registration below: what is told of a fork later hears of it earlier, and imports ask for logging's lock
import logging  # noqa: F401
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

FORK_WAIT_S: Final = 10.0
"""The longest that a fork waits for a block to end, in seconds."""


@contextmanager
def unforked() -> Iterator[None]:
    """A block in which no other thread forks the process, unless it has waited for long. One thread at a time."""
    with _FORKS.guard:
        yield


class _Forks:
    """The lock that a thread holds while it forks."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        # reentrant, as what is imported may fork
        self.guard = threading.RLock()

    def begin(self) -> None:
        self.guard.acquire(timeout=FORK_WAIT_S)

    def end(self) -> None:
        # it is not held if it could not be waited for
        with suppress(RuntimeError):
            self.guard.release()


_FORKS = _Forks()
os.register_at_fork(before=_FORKS.begin, after_in_parent=_FORKS.end, after_in_child=_FORKS.renew)
