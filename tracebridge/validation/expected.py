"""What the journals of a session say that a backend should hold."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec

from tracebridge import policy as policies
from tracebridge.delivery.portion import Journal
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.event import Json
from tracebridge.journal.reader import read_journal
from tracebridge.policy import Policy
from tracebridge.session_stream import Problem, SessionStream
from tracebridge.span import Span
from tracebridge.validation.comparison import SpanId

_READ_BYTES: Final = 1 << 20


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of one session, and what they were made of."""

    spans: list[Span]
    is_closed: bool
    """Whether nothing in it is open any more."""
    narrowed: int
    """Events of which the policy has left something out or cut."""
    narrowed_by: tuple[str, ...]
    """The settings of the policy that have done so."""
    read_ns: int
    """When the first of the journals was begun to be read."""
    sizes: dict[Journal, int]
    """Bytes of each journal that were read."""
    ends: dict[Journal, int]
    """Where each journal ended then: beyond what was read stood no whole line."""
    sources: dict[SpanId, Journal]
    """By span, the journal that it was recorded in."""
    unread: int = 0
    """Whole lines that are no events, so that nothing is expected of them and nobody has them."""
    first_unread: Problem | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether something was written since."""
        return any(journal.size > end for journal, end in self.ends.items())

    def place(self, span_id: SpanId, span: Span) -> str:
        """Where a span was recorded: the file, and the line of its first event. It reads the file."""
        journal = self.sources.get(span_id)
        edges = [edge.ordinal for edge in (span.opened, span.closed) if edge is not None]
        return "" if journal is None or not edges else f"{journal.events}:{_line_of(journal, min(edges))}"


def expected_of(journals: Iterable[Journal], policy: Policy) -> Expected:
    """Read the journals of one session.

    Raises:
        OSError: one cannot be read.
    """
    spans: list[Span] = []
    sizes: dict[Journal, int] = {}
    ends: dict[Journal, int] = {}
    sources: dict[SpanId, Journal] = {}
    is_closed, unread = True, 0
    first_unread: Problem | None = None
    narrowing = _CountedNarrowing(policy)
    read_ns = time.time_ns()
    for journal in journals:
        stream = SessionStream(journal.events, narrowing)
        # asked before the file is read: what is written meanwhile must not be given up unseen
        began_ns = time.time_ns()
        found: list[Span] = []
        for step in stream.steps():
            found += step.spans
            if step.problem is not None and step.problem.is_unread:
                unread += 1
                first_unread = first_unread or step.problem
        found += stream.expire(began_ns - INCOMPLETE_GRACE_NS)
        # the same run may lie in two folders, one a copy of the other; a backend should hold it once
        for span in found:
            if sources.setdefault(id_of(span), journal) is journal:
                spans.append(span)
        sizes[journal] = stream.offset
        ends[journal] = stream.end
        is_closed = is_closed and stream.is_idle
    return Expected(
        spans=spans,
        is_closed=is_closed,
        narrowed=narrowing.changed,
        narrowed_by=narrowing.settings,
        read_ns=read_ns,
        sizes=sizes,
        ends=ends,
        sources=sources,
        unread=unread,
        first_unread=first_unread,
    )


def id_of(span: Span) -> SpanId:
    """What names a span."""
    return span.trace_id, span.span_id


class _CountedNarrowing:
    """Narrows events as a policy says, counts those that it changes, and knows by which settings."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # one setting each, until it is known to have changed something
        self._idle = {name: Policy(**{name: getattr(policy, name)}) for name in policies.CONTENT_KEYS}
        self.changed = 0

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings by which something was changed."""
        return tuple(name for name in policies.CONTENT_KEYS if name not in self._idle)

    def __call__(self, event_type: str, data: dict[str, Json]) -> dict[str, Json]:
        kept = policies.apply(self._policy, event_type, data)
        if kept is not data:
            self.changed += 1
            for name, alone in list(self._idle.items()):
                if policies.apply(alone, event_type, data) is not data:
                    del self._idle[name]
        return kept


def _line_of(journal: Journal, ordinal: int) -> int:
    """The number of the line, from 1, that holds the event with this place among the events."""
    with journal.events.open("rb") as file:
        whole = (line for line in read_journal(file, 0) if line.event is not None)
        offset = next(line.offset for number, line in enumerate(whole) if number == ordinal)
        file.seek(0)
        before = 0
        while file.tell() < offset:
            before += file.read(min(_READ_BYTES, offset - file.tell())).count(b"\n")
        return before + 1
