"""`BackgroundThread`: a thread in somebody else's program, which leaves the program's signals to it."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any, Final

_ITS_OWN: Final = frozenset(
    {
        # what the thread itself has done, or what must end or trace the process wherever it is
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP),
        # a profiler's, which belong to the thread that uses the time
        *(signal.SIGPROF, signal.SIGVTALRM),
    }
)


class BackgroundThread(threading.Thread):  # noqa: TID251  # the one in whose stead all others are
    """A daemon thread that takes no signal which is meant for the program.

    The kernel hands a signal to whichever thread does not block it. Python calls the handler in the main thread alone,
    and cannot wake it there if another thread was handed the signal: a program that waits to be told to stop
    (`Event.wait`, `Thread.join`) would not hear of it. Threads that this one starts block the same signals, and so do
    processes, unless they see to it. Where gevent or eventlet has put something else in the place of threads, there is
    only the program's own, and nothing to block.
    """

    def __init__(self, target: Callable[..., object], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the system, or an interpreter that exits, starts no more threads.
        """
        if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
            # of gevent or eventlet: it runs in the program's own thread, whose signals it would block
            super().start()
            return
        # a new thread blocks what the one that starts it does
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # may raise what a handler raises, as any line of the program may
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _ITS_OWN)
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
