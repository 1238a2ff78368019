"""`Place`: where in a run something is recorded, and which place is the innermost one here."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from tracebridge.recording.clock import Clock

if TYPE_CHECKING:
    from tracebridge.recording.run import Run


class Place:
    """A span in which others may be recorded: a run, a turn, or a call used as a `with` block."""

    __slots__ = ("clock", "enclosing", "is_open", "parent_id", "run", "span_id", "trace_id", "turn")

    def __init__(self, run: Run, turn: int, clock: Clock, trace_id: str, span_id: str, parent_id: str | None) -> None:
        self.run = run
        self.turn = turn
        """The number of the turn; 0 outside of turns."""
        self.clock = clock
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.enclosing: Place | None = None
        self.is_open = False

    def inside(self, span_id: str) -> Place:
        """Return the place of a call that is made here."""
        return Place(self.run, self.turn, self.clock, self.trace_id, span_id, self.span_id)

    def enter(self) -> None:
        """Make this the innermost place of the current context: that of a thread or an asyncio task."""
        self.enclosing = INNERMOST.get()
        self.is_open = True
        INNERMOST.set(self)

    def leave(self) -> None:
        """Make the enclosing place the innermost one again."""
        self.is_open = False
        # an async generator may leave its block in another context, which has a place of its own
        if INNERMOST.get() is self:
            INNERMOST.set(self.enclosing)


INNERMOST: ContextVar[Place | None] = ContextVar("tracebridge_place", default=None)
"""The innermost open block of the current context, of any run."""
