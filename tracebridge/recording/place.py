"""`Place`: where in a run something is recorded, and which place is the innermost one here."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from tracebridge.fork import LINEAGE
from tracebridge.recording.clock import Clock
from tracebridge.tracecontext import TraceContext

if TYPE_CHECKING:
    from tracebridge.recording.run import Run


class Place:
    """A span in which others may be recorded: a run, a turn, or a call used as a `with` block."""

    __slots__ = (
        "_entered",
        "_generation",
        "clock",
        "enclosing",
        "is_abandoned",
        "is_call",
        "is_open",
        "is_random",
        "parent_id",
        "run",
        "span_id",
        "trace_flags",
        "trace_id",
        "tracestate",
        "turn",
    )

    def __init__(
        self,
        run: Run,
        turn: int,
        clock: Clock,
        trace_id: str,
        span_id: str,
        parent_id: str | None,
        trace_flags: str | None = None,
        tracestate: str = "",
        is_random: bool = False,
    ) -> None:
        self.run = run
        self._generation = LINEAGE.generation
        self.turn = turn
        """The number of the turn; 0 outside of turns."""
        self.clock = clock
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.trace_flags = trace_flags
        """`NOT_SAMPLED` or None."""
        self.tracestate = tracestate
        """What is passed along with the trace, if it came from another service."""
        self.is_random = is_random
        """Whether the trace came from another service that says that its id is random."""
        self._entered: object = None
        self.enclosing: Place | None = None
        self.is_open = False
        self.is_abandoned = False
        """Whether it was left by a generator that was not read to its end."""
        self.is_call = False

    @property
    def is_inherited(self) -> bool:
        """Whether a process that this one was forked from has made it, and is the one to end it."""
        return self._generation != LINEAGE.generation

    def inside(self, span_id: str) -> Place:
        """Return the place of a call that is made here."""
        place = Place(
            *(self.run, self.turn, self.clock, self.trace_id, span_id, self.span_id),
            *(self.trace_flags, self.tracestate, self.is_random),
        )
        place.is_call = True
        return place

    def context(self, span_id: str) -> TraceContext:
        """Return a span of this trace as other services are told of it."""
        return TraceContext(
            trace_id=self.trace_id,
            span_id=span_id,
            is_sampled=self.trace_flags is None,
            is_random=self.is_random,
            tracestate=self.tracestate,
        )

    def enter(self) -> None:
        """Make this the innermost place of the current context: that of a thread or an asyncio task."""
        self.enclosing = place = _still_of_use(INNERMOST.get())
        # what another thread has left stays in the chain of this one: below those that are open here, too
        while place is not None:
            outer = place.enclosing
            if outer is not None and (outer.is_abandoned or outer.run is not place.run):
                outer = place.enclosing = _still_of_use(outer)
            place = outer
        self.is_open = True
        INNERMOST.set(self)

    def enter_and_propagate(self) -> None:
        """Make this the innermost place, and its span the active one of the agent's own telemetry."""
        self.enter()
        propagation = self.run.propagation
        if propagation is not None:
            self._entered = propagation.enter(self.context(self.span_id))

    def leave(self, exception: BaseException | None = None) -> None:
        """Make the enclosing place the innermost one again; `exception` is what the block was left by."""
        self.is_open = False
        self.is_abandoned = isinstance(exception, GeneratorExit)
        propagation = self.run.propagation
        if propagation is not None:
            propagation.leave(self._entered)
        innermost = INNERMOST.get()
        if innermost is self:
            INNERMOST.set(self.enclosing)
        elif innermost is not None:
            self._leave_from_below(innermost)

    def _leave_from_below(self, innermost: Place) -> None:
        """Leave, while places that were entered later are the inner ones here: those of generators, as a rule."""
        later: list[Place] = []
        place: Place | None = innermost
        while place is not None and place is not self:
            later.append(place)
            place = place.enclosing
        if place is None:
            # an async generator may leave its block in another context, which has a place of its own
            return
        # a generator that was not read to its end stays in its block; with a turn, all that was begun in it is over
        outer = self.enclosing
        for place in reversed(later):
            if place.is_open and (self.is_call or place.run is not self.run):
                place.enclosing = outer
                outer = place
        INNERMOST.set(outer)


def _still_of_use(place: Place | None) -> Place | None:
    """Return the first place, from `place` outwards, that something may still be recorded in."""
    while place is not None and (place.is_abandoned or place.run.handle() is None):
        place = place.enclosing
    return place


INNERMOST: ContextVar[Place | None] = ContextVar("tracebridge_place", default=None)
"""The innermost open block of the current context, of any run."""
