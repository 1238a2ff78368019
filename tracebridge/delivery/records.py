"""What delivery writes down, as typed records: batches, cursors moved on, dead letters, accounts."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from tracebridge.policy import Policy
from tracebridge.session_stream import Cursor
from tracebridge.span import Span

Fate = Literal["unknown", "unsent"]
"""Of a batch in flight. `unknown`: it may have been sent. `unsent`: the backend certainly does not hold it."""

LATEST_NS: Final = 2**63 - 1
"""A time that never comes."""


class SpanRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Names a span that was sent: enough to look for it at the backend."""

    trace_id: str
    span_id: str
    session_id: str
    start_ns: int
    events: int
    """How many events the span was made of."""

    @classmethod
    def of(cls, span: Span) -> SpanRef:
        """The reference to a span."""
        events = (span.opened is not None) + (span.closed is not None)
        return cls(span.trace_id, span.span_id, span.session_id, span.start_ns, events)


class Suspicion(msgspec.Struct, frozen=True, array_like=True):
    """How often a backend failed on a batch while it served others; see `tracebridge.delivery.poison`."""

    strikes: int = 0
    since: int = 0
    """How many requests the backend had taken when it failed for the first time on the batch, or on the whole of it."""
    served: int = 0
    """How many requests the backend had taken when it failed on the batch last."""
    is_half: bool = False
    """Whether the batch is a part of one that was taken apart for this."""
    failure: str = ""
    """What the last failure was."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Encoded spans that go out as one request."""

    parts: tuple[bytes, ...]
    """Empty in a batch whose spans are not at hand: `State.parts` has them."""
    refs: tuple[SpanRef, ...]
    id: int = 0
    """0 until it is written down."""
    fate: Fate = "unknown"
    sent_ns: int = 0
    """When it was last sent, by the wall clock; 0 if it never was."""
    suspicion: Suspicion = Suspicion()
    """Whether the backend fails because of it."""

    @property
    def events(self) -> int:
        """How many events stand behind it."""
        return sum(ref.events for ref in self.refs)


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """Under which policy it was encoded what waits for a target."""

    policy: Policy
    latest_wider: int = 0
    """The number of the latest dead letter that may be encoded under a wider one; 0 if there is none."""


class Witness(msgspec.Struct, frozen=True, array_like=True):
    """A span that was accepted after a batch of unknown fate was sent: once it shows, so must that batch."""

    ref: SpanRef
    sent_at: float
    """In seconds since the epoch."""
    seen_at: float | None = None
    """When it first showed, in seconds since the epoch."""


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """A session's cursor, moved on."""

    folder: int
    session_id: str
    cursor: Cursor

    @property
    def deadline_ns(self) -> int:
        """When the first of what is open has waited long enough; far in the future when nothing is open."""
        checkpoint = self.cursor.checkpoint
        return min(checkpoint.deadline_ns, LATEST_NS) if checkpoint.opened else LATEST_NS


class Mark(NamedTuple):
    """Where a session stands: as much of its cursor as tells whether there is something to do."""

    position: int
    """How many bytes of it were read."""
    deadline_ns: int | None
    """When what is open in it is due; None when nothing is open."""
    head: str
    """That of its cursor."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A span that the backend will not take, and why."""

    id: int
    sink: str
    reason: str
    died_ns: int
    """When it was refused, in nanoseconds since the epoch."""
    ref: SpanRef
    is_retried: bool
    """Whether it is to be sent again by whoever ships next."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is doing, as its shipper last wrote it down."""

    state: str
    """`shipping`, `idle`, `backing off`, `paused`, `waiting` for the backend to be read, or `failing`."""
    detail: str
    """Why, in words; empty where there is nothing to say."""
    since_ns: int
    """Since when, in nanoseconds since the epoch."""
    until_ns: int = 0
    """When it is tried again, in nanoseconds since the epoch; 0 while nothing is waited for."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What one target has been given so far, all of one moment.

    Of the events that were read, each is confirmed, in flight, open, dead, discarded or left out.
    """

    sink: str
    endpoint: str
    sessions: int
    read_events: int
    """Events that were read from the journals for the target."""
    open_events: int
    """Those of them whose spans wait for their end."""
    in_flight_spans: int
    in_flight_events: int
    in_flight_since_ns: int
    """When the oldest of what is in flight was written down; 0 when nothing is."""
    dead_spans: int
    dead_events: int
    latest_dead: int
    """The number of the latest of its dead letters; 0 if there is none."""
    dead_by_reason: dict[str, int]
    """How many spans were refused, by reason."""
    counters: dict[str, int]
    condition: Condition | None

    @property
    def unaccounted_events(self) -> int:
        """Events that were read and are nowhere: always 0."""
        counters = ("confirmed_events", "discarded_events", "left_out_events")
        known = sum(self.counters.get(name, 0) for name in counters)
        return self.read_events - known - self.open_events - self.in_flight_events - self.dead_events

    def more(self, before: Account, counter: str) -> int:
        """By how much a counter has grown since an earlier account of the same target."""
        return self.counters.get(counter, 0) - before.counters.get(counter, 0)


class Target(msgspec.Struct, frozen=True):
    """A sink's backend that was delivered to at some time."""

    id: int
    sink: str
    endpoint: str
    off_since_ns: int
    """Since when it is known to be switched off; 0 while it is on."""
