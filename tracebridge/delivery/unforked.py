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

FORK_WAIT_S: Final = 5.0
"""The longest that a fork waits for blocks to end, in seconds."""


@contextmanager
def unforked() -> Iterator[None]:
    """A block in which no other thread forks the process, unless it has waited for `FORK_WAIT_S`.

    Any number of threads may be in such a block at once. One that was waited for in vain holds up no fork again.
    """
    block = object()
    _FORKS.enter(block)
    try:
        yield
    finally:
        _FORKS.leave(block)


class _Forks:
    """Knows the blocks that a fork has to wait for."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        # held while the process forks, so that no block begins; reentrant, as a signal handler of the agent may fork
        self._changed = threading.Condition(threading.RLock())
        self._threads: dict[object, int] = {}

    def enter(self, block: object) -> None:
        with self._changed:
            self._threads[block] = threading.get_ident()

    def leave(self, block: object) -> None:
        with self._changed:
            self._threads.pop(block, None)
            self._changed.notify_all()

    def begin(self) -> None:
        self._changed.acquire()
        # what is imported may fork
        mine = {threading.get_ident()}
        if not self._changed.wait_for(lambda: mine.issuperset(self._threads.values()), FORK_WAIT_S):
            self._threads.clear()

    def end(self) -> None:
        # it is not held if a signal handler's exception came before
        with suppress(RuntimeError):
            self._changed.release()


_FORKS = _Forks()
os.register_at_fork(before=_FORKS.begin, after_in_parent=_FORKS.end, after_in_child=_FORKS.renew)
