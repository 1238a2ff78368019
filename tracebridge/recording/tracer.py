"""`Tracer`: opens sessions as one configuration says, and starts the delivery of what they record."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Protocol

from tracebridge import jsonvalue
from tracebridge.errors import UnsupportedFileSystemError
from tracebridge.fork import call_in_forked_child
from tracebridge.interruption import is_interruption
from tracebridge.journal.writer import Journal
from tracebridge.policy import keeps_session
from tracebridge.recording.clock import Clock
from tracebridge.recording.copying import Handle
from tracebridge.recording.ids import IdSource
from tracebridge.recording.propagation import propagation
from tracebridge.recording.run import Capture, Run
from tracebridge.recording.session import Session
from tracebridge.recording.turn import Turn
from tracebridge.tracecontext import from_headers
from tracebridge.trouble import Trouble

if TYPE_CHECKING:
    from tracebridge.config import Settings

FLUSH_S: Final = 30.0
"""How long `flush` waits by default."""

START_AGAIN_S: Final = 30.0
"""When it is tried again to start delivering, in seconds."""

_OWN_FAULT: Final = "The agent is not concerned, but something was not recorded; please report it"


_DELIVERY: Final = "Recording goes on; what is not delivered stays in the trace folder, for `tracebridge ship` or later"


class Shipper(Protocol):
    """What delivers the journal: in the background of the agent's process, or in a process that it starts."""

    def start(self) -> None:
        """Start delivering."""
        ...

    def notice(self) -> None:
        """A run begins or has ended: see to it that somebody delivers."""
        ...

    def flush(self, timeout: float) -> int:
        """Deliver what is recorded now, for at most `timeout` seconds; return how many events are left."""
        ...

    def stop(self, timeout: float) -> int:
        """Deliver for at most `timeout` seconds more, then stop; say in the log, and return, what is left."""
        ...


class Tracer(Handle):
    """Records sessions as one configuration says. Most programs need only the default one.

    Raises:
        ConfigurationError: the configuration has a mistake. Nothing else that a tracer does raises.
    """

    def __init__(
        self,
        settings: Settings | str | PathLike[str] | Mapping[str, Any] | None = None,
        *,
        on_error: Callable[[BaseException], None] | None = None,
        ids: IdSource | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Read the configuration.

        Args:
            settings: a file's path, a mapping of the same form, the settings that were read from either, or
                None for the defaults.
            on_error: called with every error that is otherwise only counted and logged.
            ids: where new ids come from.
            wall_ns: the wall clock.
            monotonic_ns: the monotonic clock.
        """
        self.settings = _read(settings)
        self.ids = ids or IdSource()
        self.trouble = Trouble(on_error)
        """What could not be recorded, by kind."""
        self.orphan_after_ns = int(self.settings.orphan_after * 1e9)
        self.one_trace_per_session = self.settings.trace_scope == "session"
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._capture = Capture(self.settings.capture)
        self._journal = Journal(self.settings.trace_dir, trouble=self.trouble)
        self._propagation = propagation(self.trouble) if self.settings.propagate else None
        self._shipper: Shipper | None = None
        self._is_shipper_wanted = self.settings.delivery != "external" and bool(self.settings.enabled_sinks)
        self._start_at = 0.0
        self._lock = threading.RLock()
        call_in_forked_child(self._after_fork)

    def trace_session(
        self,
        session_id: Any = None,
        metadata: Any = None,
        *,
        user_id: Any = None,
        tags: Any = None,
        environment: Any = None,
        release: Any = None,
        agent_name: Any = None,
        **extra: Any,
    ) -> Session:
        """Return a `with` block (or `async with`) that records one run of a session.

        Args:
            session_id: the same for all runs that belong together, e.g. all of one conversation; by default a
                new one.
            metadata: whatever is worth knowing of the session; a mapping.
            user_id: who uses the agent.
            tags: texts to find the session by.
            environment: where the agent runs, e.g. `production`; by default as configured.
            release: the version of the agent; by default as configured.
            agent_name: which agent it is.
            **extra: more entries of the metadata.
        """
        attributes = {
            "user_id": _text(user_id),
            "tags": _texts(tags),
            "environment": _text(environment) or self.settings.environment,
            "release": _text(release) or self.settings.release,
            "agent_name": _text(agent_name),
        }
        known = {key: value for key, value in attributes.items() if value}
        session = Session(self, session_id, metadata, known)
        session.metadata.update(extra)
        return session

    def trace_turn(
        self, session: Session, user_input: Any = None, *, traceparent: Any = None, tracestate: Any = None, **extra: Any
    ) -> Turn:
        """Return a `with` block that records one turn of a session; see `tracebridge.trace_turn`."""
        remote = None
        try:
            if not isinstance(session, Session):
                raise TypeError(f"trace_turn needs what trace_session gave, not a {type(session).__name__}")
            remote = from_headers(traceparent, tracestate)
        except Exception as error:
            self.report(error)
            if not issubclass(type(session), Session):
                session = Session(self, None, None, {}, is_recorded=False)
        return Turn(session, user_input, extra, remote)

    def flush(self, timeout: float = FLUSH_S) -> int:
        """Wait for delivery, at most `timeout` seconds.

        Returns how many events are left, as far as they could be counted in the time; they stay in the journal.
        """
        try:
            if not self._is_folder_good():
                return 0
            shipper = self._started_shipper()
            return 0 if shipper is None else shipper.flush(timeout)
        except Exception as error:
            self.report(error)
            return 0

    def shutdown(self, timeout: float | None = None) -> None:
        """Deliver for at most `timeout` seconds (`shutdown_timeout` by default), then stop delivering.

        What is left stays in the journal for the next process. Recording goes on working.
        """
        try:
            with self._lock:
                shipper, self._shipper, self._is_shipper_wanted = self._shipper, None, False
            if shipper is not None:
                atexit.unregister(self.shutdown)
                shipper.stop(self.settings.shutdown_timeout if timeout is None else timeout)
            self._journal.close()
        except Exception as error:
            self.report(error)

    def open_run(self, session_id: str) -> Run | None:
        """Begin to write a run of a session; None if it is not to be recorded."""
        try:
            if not self.settings.enabled or not keeps_session(self.settings.capture, session_id):
                return None
            if not self._is_folder_good():
                return None
            self._see_to_delivery()
            return Run(
                session_id=session_id,
                journal=self._journal,
                capture=self._capture,
                ids=self.ids,
                monotonic_ns=self._monotonic_ns,
                propagation=self._propagation,
            )
        except Exception as error:
            self.report(error)
            return None

    def close_run(self, run: Run) -> None:
        """A run has ended: let go of its file, and see to it that it is delivered."""
        run.close_file()
        self._see_to_delivery()

    def clock(self) -> Clock:
        """Return a clock for a new run or turn."""
        return Clock(self._wall_ns, self._monotonic_ns)

    def report(self, error: BaseException) -> None:
        """Count an error of tracebridge itself."""
        self.trouble.report("tracing", error, _OWN_FAULT)

    def _is_folder_good(self) -> bool:
        try:
            self._journal.check_folder()
        except UnsupportedFileSystemError as error:
            self.trouble.report("trace_dir", error, "Nothing is recorded; the agent is not concerned")
            return False
        return True

    def _see_to_delivery(self) -> None:
        shipper = self._started_shipper()
        if shipper is not None:
            shipper.notice()

    def _started_shipper(self) -> Shipper | None:
        if self._shipper is not None or not self._is_shipper_wanted:
            return self._shipper
        with self._lock:
            if self._shipper is not None or not self._is_shipper_wanted or time.monotonic() < self._start_at:
                return self._shipper
            try:
                shipper = self._new_shipper()
                shipper.start()
            except Exception as error:
                # too many threads, say
                self._start_at = time.monotonic() + START_AGAIN_S
                self._could_not_deliver(error)
                return None
            self._shipper = shipper
            atexit.register(self.shutdown)
            return shipper

    def _new_shipper(self) -> Shipper:
        # imported here: the one brings SQLite, which a process that only records does not need
        if self.settings.delivery == "process":
            from tracebridge.delivery.detached import DetachedShipper

            return DetachedShipper(self.settings, self._could_not_deliver)
        from tracebridge.delivery.background import BackgroundShipper

        return BackgroundShipper(self.settings)

    def _could_not_deliver(self, error: Exception) -> None:
        self.trouble.report("delivery", error, _DELIVERY)

    def _after_fork(self) -> None:
        self.ids.forget()
        self._lock = threading.RLock()
        # threads stay with the parent; this process starts its own when it records
        self._shipper = None


def _read(settings: Any) -> Settings:
    # imported here: an agent that is started without a configuration need not wait for it
    from tracebridge import config

    return settings if isinstance(settings, config.Settings) else config.load(settings)


def _text(value: Any) -> str:
    return "" if value is None else jsonvalue.text(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    try:
        if isinstance(value, (list, tuple, set, frozenset)):
            return [jsonvalue.text(entry) for entry in value]
    except Exception as error:
        # a lazy object, or another thread that changes it
        if is_interruption(error):
            raise
    return [jsonvalue.text(value)]
