"""`Senders`: the threads from which a shipper's requests go out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from tracebridge.sink import Receipt
from tracebridge.threads import BackgroundThread

_Task = tuple[Callable[[bytes], Receipt], bytes, "Future[Receipt]"]
_Tasks = SimpleQueue[_Task | None]


class Senders:
    """A few daemon threads that each send one request at a time.

    `ThreadPoolExecutor` refuses work as soon as the interpreter begins to exit, before any exit handler could deliver
    what is left, and then waits for every request that hangs. These go on until they are closed, nobody has them any
    more, or the process is gone.
    """

    def __init__(self, count: int, name: str) -> None:
        """Start `count` threads, now: none can be started any more while the interpreter exits."""
        self._tasks: _Tasks = SimpleQueue()
        # a shipper that failed half way through its making is never closed
        self._end = weakref.finalize(self, _end, self._tasks, count)
        self._end.atexit = False
        for number in range(count):
            BackgroundThread(target=_work, args=(self._tasks,), name=f"{name}-{number}").start()

    def submit(self, deliver: Callable[[bytes], Receipt], request: bytes) -> Future[Receipt]:
        """Send `request` once a thread is free."""
        future: Future[Receipt] = Future()
        self._tasks.put((deliver, request, future))
        return future

    def close(self) -> None:
        """End the threads once the requests that are out are answered; nobody waits for them."""
        self._end()


def _end(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        deliver, request, future = task
        try:
            receipt = deliver(request)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(receipt)
        # an idle thread must not keep the last request, nor the sink
        del task, deliver, request, future
