"""Keeps what tracebridge itself asks a server out of the host's traces.

An agent may have OpenTelemetry's instrumentations of its HTTP or gRPC client installed. They would make a span of every
request of ours, in the agent's own traces, and have them delivered by the agent's exporters.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache


def untraced() -> AbstractContextManager[None]:
    """A context in which OpenTelemetry's instrumentations leave the requests of this thread alone."""
    return _suppression()()


@cache
def _suppression() -> Callable[[], AbstractContextManager[None]]:
    try:
        # every instrumentation comes with this package: without it there is none to suppress
        from opentelemetry.instrumentation.utils import suppress_instrumentation
    except Exception:
        # absent, too old, or broken in whatever way: no reason not to deliver
        return nullcontext
    return suppress_instrumentation
