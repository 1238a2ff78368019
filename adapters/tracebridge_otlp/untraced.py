"""Keeps what tracebridge itself asks a server out of the host's traces and logs.

An agent may have OpenTelemetry's instrumentations of its HTTP or gRPC client installed. They would make a span of every
request of ours, in the agent's own traces, and have them delivered by the agent's exporters. And the HTTP client tells
the agent's log of every request, in the middle of it: a filter or handler there that raises, as one does that looks for
the current web request, would break off a request that the server has taken.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Final

_LOGGERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


@contextmanager
def untraced() -> Iterator[None]:
    """A context in which instrumentations and the HTTP client's log leave the requests of this thread alone."""
    with _suppression()(), _log()():
        yield


@cache
def _suppression() -> Callable[[], AbstractContextManager[None]]:
    try:
        # every instrumentation comes with this package: without it there is none to suppress
        from opentelemetry.instrumentation.utils import suppress_instrumentation
    except Exception:
        # absent, too old, or broken in whatever way: no reason not to deliver
        return nullcontext
    return suppress_instrumentation


@cache
def _log() -> Callable[[], AbstractContextManager[None]]:
    silent = threading.local()

    def is_somebody_elses(record: logging.LogRecord) -> bool:
        return not getattr(silent, "is_on", False)

    for name in _LOGGERS:
        # of a logger, not of its parent's, whose filters see nothing of what its children are told
        logging.getLogger(name).addFilter(is_somebody_elses)

    @contextmanager
    def silence() -> Iterator[None]:
        before = getattr(silent, "is_on", False)
        silent.is_on = True
        try:
            yield
        finally:
            silent.is_on = before

    return silence
