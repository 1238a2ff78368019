"""The default tracer, and the functions that use it: the original API, and `configure`, `flush`, `shutdown`.

The default tracer is the only state that any module of tracebridge holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from tracebridge.errors import ConfigurationError
from tracebridge.fork import call_in_forked_child
from tracebridge.recording.session import Session
from tracebridge.recording.tracer import FLUSH_S, Tracer

if TYPE_CHECKING:
    from tracebridge.recording.turn import Turn


class _Default:
    """Holds the default tracer, and makes it when it is first needed."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        # reentrant, as a signal handler of the agent may be the first to record, or come in between
        self._lock = threading.RLock()
        call_in_forked_child(self._after_fork)

    def get(self) -> Tracer:
        """Return the default tracer; it is made of the file that is found if nobody called `configure`."""
        tracer = self.tracer
        if tracer is not None:
            return tracer
        with self._lock:
            if self.tracer is None:
                found = _found()
                # unless a signal handler has been faster
                self.tracer = self.tracer or found
            return self.tracer

    def replace(self, tracer: Tracer) -> None:
        """Make another tracer the default, and shut the one before down."""
        with self._lock:
            before, self.tracer = self.tracer, tracer
        if before is not None:
            before.shutdown()

    def _after_fork(self) -> None:
        # the thread that held it may not exist here
        self._lock = threading.RLock()


def configure(source: str | PathLike[str] | Mapping[str, Any] | None = None) -> Tracer:
    """Read a configuration and make it the default tracer's.

    Args:
        source: a YAML file's path, or a mapping of the same form. By default the file that
            `$TRACEBRIDGE_CONFIG` names, else `tracebridge.yaml` in the current folder if there is one, else
            the defaults. A program that does not call `configure` gets the same when it first records.

    Raises:
        ConfigurationError: the configuration has a mistake; the message says which, and where.
    """
    tracer = Tracer(_located() if source is None else source)
    _DEFAULT.replace(tracer)
    return tracer


def trace_session(
    session_id: Any = None,
    metadata: Any = None,
    *,
    user_id: Any = None,
    tags: Any = None,
    environment: Any = None,
    release: Any = None,
    agent_name: Any = None,
    tracer: Tracer | None = None,
    **extra: Any,
) -> Session:
    """Return a `with` block (or `async with`) that records one run of a session.

    Args:
        session_id: the same for all runs that belong together, e.g. all of one conversation; by default a new
            one.
        metadata: whatever is worth knowing of the session; a mapping.
        user_id: who uses the agent.
        tags: texts to find the session by.
        environment: where the agent runs, e.g. `production`; by default as configured.
        release: the version of the agent; by default as configured.
        agent_name: which agent it is.
        tracer: what records it; by default the default tracer.
        **extra: more entries of the metadata.
    """
    return (tracer or _DEFAULT.get()).trace_session(
        session_id,
        metadata,
        user_id=user_id,
        tags=tags,
        environment=environment,
        release=release,
        agent_name=agent_name,
        **extra,
    )


def trace_turn(
    session: Session, user_input: Any = None, *, traceparent: Any = None, tracestate: Any = None, **extra: Any
) -> Turn:
    """Return a `with` block (or `async with`) that records one turn of a session.

    Args:
        session: what `trace_session` gave.
        user_input: what the user said.
        traceparent: the header of that name of the request that the turn answers, if it came with one: the turn
            continues its trace. What is no such header is left alone, as the standard wants it.
        tracestate: the header of that name.
        **extra: more entries of the turn's first event.
    """
    # that of the session, as the default one may not be wanted; what is no session is reported by the default one
    tracer = session.tracer if issubclass(type(session), Session) else _DEFAULT.get()
    return tracer.trace_turn(session, user_input, traceparent=traceparent, tracestate=tracestate, **extra)


def flush(timeout: float = FLUSH_S) -> int:
    """Wait for delivery, at most `timeout` seconds; return how many events are left."""
    return 0 if _DEFAULT.tracer is None else _DEFAULT.tracer.flush(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Deliver for at most `timeout` seconds (`shutdown_timeout` by default), then stop delivering.

    What is left stays in the journal for the next process. The end of the process does this by itself.
    """
    if _DEFAULT.tracer is not None:
        _DEFAULT.tracer.shutdown(timeout)


def _located() -> PathLike[str] | None:
    # imported here: an agent that is configured otherwise does not need it
    from tracebridge.config import locate

    return locate()


def _found() -> Tracer:
    try:
        return Tracer(_located())
    except ConfigurationError as error:
        # nobody asked for the configuration to be read here, in the middle of the agent's work
        # an absolute folder, though nothing is written there: it may be the current one that cannot be found
        silent = Tracer({"agent_trace": {"enabled": False, "trace_dir": "/"}})
        silent.trouble.report("configuration", error, "Nothing is recorded")
        return silent


_DEFAULT = _Default()
