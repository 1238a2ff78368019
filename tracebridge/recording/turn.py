"""`Turn`: what `trace_turn` gives, from the user's input to the agent's output."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from tracebridge.event import TURN_END, TURN_START
from tracebridge.recording.copying import Handle
from tracebridge.recording.failure import failure_of
from tracebridge.recording.place import Place
from tracebridge.recording.run import Run
from tracebridge.tracecontext import TraceContext

if TYPE_CHECKING:
    from tracebridge.recording.session import Session


class Turn(Handle):
    """One turn of a session.

    A turn that is opened inside a tool call is a sub-agent that works for that call, one that is opened
    inside another turn is a part of it: both belong to its trace, and have turn numbers of their own. Every
    other turn begins a trace, unless `trace_scope` says that a session is one, or the trace of a request is
    continued: that of `traceparent`, or with `propagate: true` that of the span that is active in the agent.
    """

    __slots__ = ("_inner_entries", "_place", "_remote", "_started_ns", "extra", "output", "session", "user_input")

    def __init__(
        self, session: Session, user_input: Any, extra: dict[str, Any], remote: TraceContext | None = None
    ) -> None:
        self.session = session
        self.user_input = user_input
        self.extra = extra
        self.output: Any = None
        """What the agent answered; recorded at the end of the turn. It is None again when the handle begins another."""
        self._remote = remote
        self._place: Place | None = None
        self._started_ns = 0
        self._inner_entries = 0

    @property
    def number(self) -> int:
        """The turn's number in its run, from 1; 0 before it has begun, or when it is not recorded."""
        return 0 if self._place is None else self._place.turn

    @property
    def trace_id(self) -> str:
        """The trace that the turn belongs to, 32 hex digits; empty as long as `number` is 0."""
        return "" if self._place is None else self._place.trace_id

    @property
    def span_id(self) -> str:
        """The turn's span, 16 hex digits; empty as long as `number` is 0."""
        return "" if self._place is None else self._place.span_id

    def __enter__(self) -> Turn:
        run = self.session.run
        if self._place is not None and self._place.is_open:
            # the turn goes on; two places of one turn would not be left in the order that they were entered in
            self._inner_entries += 1
        elif run is not None:
            try:
                self._begin_unharmed(run)
            except BaseException as error:
                # an interruption, by Ctrl-C or the like: nobody leaves a block that was not entered
                if self._place is not None and self._place.is_open:
                    self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        if self._inner_entries:
            self._inner_entries -= 1
        elif place is not None:
            try:
                self._end(place, exception)
            except Exception as error:
                self.session.report(error)

    async def __aenter__(self) -> Turn:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, exception, trace)

    def _begin_unharmed(self, run: Run) -> None:
        try:
            self._begin(run)
        except Exception as error:
            self.session.report(error)

    def _begin(self, run: Run) -> None:
        if self._place is not None:
            # the same handle entered again is another turn, without an answer yet
            self.output = None
        self._place, remote = self.session.open_turn(run, self._remote)
        place = self._place
        self._started_ns = now_ns = run.monotonic_ns()
        place.enter_and_propagate()
        data = {"user_input": self.user_input, **self.extra}
        if remote is not None:
            data["remote_parent"] = True
            if remote.tracestate:
                data["tracestate"] = remote.tracestate
        run.record(TURN_START, data, place, place.span_id, place.parent_id, now_ns)

    def _end(self, place: Place, exception: BaseException | None) -> None:
        place.leave(exception)
        self.session.close_turn(place)
        if place.is_inherited:
            return
        now_ns = place.run.monotonic_ns()
        data = {"output": self.output}
        error = failure_of(exception)
        if error is not None:
            data["error"] = error
        took_ms = (now_ns - self._started_ns) / 1e6
        place.run.record(TURN_END, data, place, place.span_id, place.parent_id, now_ns, took_ms)
