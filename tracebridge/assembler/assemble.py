"""`Assembler`: the stream from one session's events to spans.

Its memory follows what is open, never the session's length, and an event costs the same however much is open. What is
incomplete or late is decided by the journal alone, so that live, replayed and expected spans are always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import msgspec

from tracebridge import event as events
from tracebridge.assembler import derived_ids
from tracebridge.assembler.deadlines import LATEST_NS, Deadlines
from tracebridge.assembler.homes import KIND_OF, edge_of, repeated, settle, with_untold
from tracebridge.assembler.opening import Opening, Place, in_range, started_ns
from tracebridge.assembler.run import Run, orphan_after_ns
from tracebridge.event import Event
from tracebridge.span import Edge, Extent, Link, Span, SpanKind

_Ids = tuple[str, str, str]
"""Of the trace, of the span and of its parent."""


class OpenEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An opening event whose span is still open: enough to take it up again after its line is read once more."""

    offset: int
    ordinal: int
    trace_id: str
    parent_id: str


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run in which something is open."""

    run_id: str
    last_ns: int
    """Time of the run's latest event so far."""
    answer: str = ""
    """Names what the run's latest answer of a model said, so that the same answer once more is known."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What an assembler must be told to go on where another one stopped."""

    opened: tuple[OpenEvent, ...] = ()
    runs: tuple[OpenRun, ...] = ()
    deadline_ns: int = 0
    """The time after which `expire` has something to give up; far in the future when nothing is open.

    It is here so that nobody has to read the open events to know when they are due. 0 in what was written down by a
    version that did not keep it.
    """


def as_recorded(event: Event) -> Event:
    """Leave nothing out."""
    return event


class Assembler:
    """Makes spans of one session's events, fed in file order."""

    def __init__(self, narrow: Callable[[Event], Event] = as_recorded) -> None:
        """`narrow` tells what of an event its span shows.

        Which events belong together, and what is incomplete or late, is decided by the events as they were recorded:
        whatever a policy leaves out or cuts, there are the same spans.
        """
        self._narrow = narrow
        self._runs: dict[str, Run] = {}
        self._run_numbers = count()
        # by run, perhaps earlier than its deadline, never later: what is due is looked at again
        self._alarms: Deadlines[str] = Deadlines()
        self._feeders: dict[str, Callable[[Run, Event, Place], list[Span]]] = {
            events.SESSION_START: self._start_session,
            events.SESSION_END: self._end_session,
            events.TURN_START: self._start_turn,
            events.TURN_END: self._end_turn,
            events.LLM_REQUEST: self._start_call,
            events.LLM_RESPONSE: self._end_call,
            events.TOOL_CALL: self._start_call,
            events.TOOL_RESULT: self._end_call,
        }

    def feed(self, event: Event, place: Place) -> list[Span]:
        """Take the next event and return the spans that it completes, or shows to be incomplete."""
        time_ns = in_range(event.time_ns)
        spans = self.expire(time_ns) if self._alarms.may_be_before(time_ns) else []
        run = self._runs.get(event.run_id)
        if run is None:
            run = self._begin_run(event.run_id)
        if time_ns > run.last_ns:
            run.last_ns = time_ns
        feed = self._feeders.get(event.event_type) or self._single
        spans += feed(run, event, place)
        if run.is_empty:
            self._end_run(run)
        else:
            self._alarms.set_earlier(run.run_id, time_ns + run.orphan_after_ns)
        return spans

    def expire(self, now_ns: int) -> list[Span]:
        """Give up what has waited longer than its run allows at `now_ns`, and return it as incomplete spans.

        They come in the order of their deadlines, so that it makes no difference in how many steps time passes.
        """
        expired = []
        for run_id in self._alarms.take_before(now_ns):
            run = self._runs[run_id]
            last_ns = run.last_ns
            expired += [(found.deadline_ns, run.number, last_ns, found.opening) for found in run.take_expired(now_ns)]
            if run.is_empty:
                self._end_run(run)
            else:
                self._alarms.set(run_id, run.deadline_ns())
        expired.sort(key=lambda entry: entry[:2])
        return [_span(opening, incomplete_end_ns=last_ns) for _, _, last_ns, opening in expired]

    def deadline_ns(self) -> int:
        """The time after which `expire` has something to give up; far in the future when nothing is open."""
        while (first := self._alarms.first()) is not None:
            alarm_ns, run_id = first
            deadline_ns = self._runs[run_id].deadline_ns()
            if deadline_ns <= alarm_ns:
                return deadline_ns
            self._alarms.set(run_id, deadline_ns)
        return LATEST_NS

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open."""
        return not self._runs

    def checkpoint(self) -> Checkpoint:
        """What `restored` needs, together with the lines of the open events, to go on from here."""
        opened = [
            OpenEvent(
                offset=opening.place.offset,
                ordinal=opening.place.ordinal,
                trace_id=opening.trace_id,
                parent_id=opening.parent_id,
            )
            for run in self._runs.values()
            for opening in (*run.calls, *run.turns, *([run.session] if run.session else []))
        ]
        return Checkpoint(
            opened=tuple(sorted(opened, key=lambda mark: mark.ordinal)),
            runs=tuple(
                OpenRun(run_id=run.run_id, last_ns=run.last_ns, answer=run.answer) for run in self._runs.values()
            ),
            deadline_ns=self.deadline_ns(),
        )

    @classmethod
    def restored(
        cls, checkpoint: Checkpoint, opened: Iterable[Event], narrow: Callable[[Event], Event] = as_recorded
    ) -> Assembler:
        """An assembler that goes on after `checkpoint`; `opened` are the events of `checkpoint.opened`, in order."""
        assembler = cls(narrow)
        for run in checkpoint.runs:
            assembler._begin_run(run.run_id, run.last_ns).answered = run.answer
        for mark, event in zip(checkpoint.opened, opened, strict=True):
            assembler._reopen(assembler._runs[event.run_id], mark, event)
        for run_id, reopened in assembler._runs.items():
            assembler._alarms.set(run_id, reopened.deadline_ns())
        return assembler

    def _begin_run(self, run_id: str, last_ns: int = 0) -> Run:
        run = self._runs[run_id] = Run(run_id, next(self._run_numbers), last_ns)
        return run

    def _end_run(self, run: Run) -> None:
        del self._runs[run.run_id]
        self._alarms.discard(run.run_id)

    # --- one feeder per kind of event -------------------------------------------------------------------------------

    def _start_session(self, run: Run, event: Event, place: Place) -> list[Span]:
        # the same run id again: what was open under it can no longer be closed by its own events
        spans = [self._incomplete(opening, run) for opening in run.take_all()] if run.session else []
        self._open_session(run, event, place)
        return spans

    def _open_session(self, run: Run, event: Event, place: Place) -> None:
        ids = _named_ids(event) or _derived_ids(event, "session", place, trace_id=_trace_outside_turns(event))
        shown = self._narrow(event)
        run.attributes = {}
        settle(event.event_type, shown.data, run.attributes)
        run.orphan_after_ns = orphan_after_ns(event)
        run.session = Opening("session", shown, place, *ids, run.attributes)
        # what is open already may have less time left than it had before the run said how long to wait
        self._alarms.set_earlier(run.run_id, run.deadline_ns())

    def _end_session(self, run: Run, event: Event, place: Place) -> list[Span]:
        session = run.session
        if session is None or event.span_id != session.event.span_id:
            return [self._late("session", run, event, place)]
        run.session = None
        spans = [self._incomplete(opening, run) for opening in run.take_all()]
        return [*spans, _span(session, closing=self._narrow(event), closing_place=place)]

    def _start_turn(self, run: Run, event: Event, place: Place) -> list[Span]:
        replaced = run.turns.take(event)
        self._open_turn(run, event, place)
        return [self._incomplete(replaced, run)] if replaced else []

    def _open_turn(self, run: Run, event: Event, place: Place) -> None:
        ids = _named_ids(event)
        if ids is None:
            own_trace = derived_ids.trace_id(event.session_id, run.run_id, event.turn, place.ordinal)
            ids = _derived_ids(event, "turn", place, trace_id=own_trace)
        link = None
        if run.session is not None and run.session.trace_id != ids[0]:
            link = Link(trace_id=run.session.trace_id, span_id=run.session.span_id)
        run.turns.add(Opening("turn", self._narrow(event), place, *ids, run.attributes, link))

    def _end_turn(self, run: Run, event: Event, place: Place) -> list[Span]:
        turn = run.turns.take(event)
        if turn is None:
            return [self._late("turn", run, event, place)]
        return [_span(turn, closing=self._narrow(event), closing_place=place)]

    def _start_call(self, run: Run, event: Event, place: Place) -> list[Span]:
        replaced = run.calls.take_same_id(event)
        kind = KIND_OF[event.event_type]
        self._open_call(run, event, place, self._child_ids(run, event, kind, place))
        return [self._incomplete(replaced, run)] if replaced else []

    def _open_call(self, run: Run, event: Event, place: Place, ids: _Ids) -> None:
        kind = KIND_OF[event.event_type]
        run.calls.add(Opening(kind, self._narrow(event), place, *ids, run.attributes), event)

    def _end_call(self, run: Run, event: Event, place: Place) -> list[Span]:
        kind = KIND_OF[event.event_type]
        call = run.calls.take_closed_by(event, kind)
        if call is None:
            if kind == "llm" and run.is_answer_again(event):
                return [self._repeat(run, event, place)]
            return [self._late(kind, run, event, place)]
        if kind == "llm":
            run.answered = event
        return [_span(call, closing=self._narrow(event), closing_place=place)]

    def _single(self, run: Run, event: Event, place: Place) -> list[Span]:
        kind = KIND_OF.get(event.event_type, "event")
        ids = self._child_ids(run, event, kind, place)
        return [_span(Opening(kind, self._narrow(event), place, *ids, run.attributes))]

    # --- ids and parents --------------------------------------------------------------------------------------------

    def _child_ids(self, run: Run, event: Event, kind: SpanKind, place: Place) -> _Ids:
        named = _named_ids(event)
        if named is not None:
            return named
        parent = run.turns.latest(event.turn) or run.session
        if parent is None:
            return _derived_ids(event, kind, place, trace_id=_trace_outside_turns(event))
        return _derived_ids(event, kind, place, trace_id=parent.trace_id, parent_id=parent.span_id)

    # --- spans that miss an event -----------------------------------------------------------------------------------

    def _incomplete(self, opening: Opening, run: Run) -> Span:
        return _span(opening, incomplete_end_ns=run.last_ns)

    def _late(self, kind: SpanKind, run: Run, event: Event, place: Place) -> Span:
        if event.has_ids:
            own = derived_ids.late_span_id(event.trace_id, event.span_id, place.ordinal)
            ids = (event.trace_id, own, event.span_id)
        else:
            ids = self._child_ids(run, event, kind, place)
        return _late_span(kind, self._narrow(event), place, ids, run.attributes)

    def _repeat(self, run: Run, event: Event, place: Place) -> Span:
        """An answer that was logged twice: an event of its own, so that what it took is not counted again."""
        # the ids of an answer without a call: what a policy leaves of two different answers may look the same
        trace_id, span_id, parent_id = self._child_ids(run, event, "llm", place)
        if event.has_ids:
            # its id may be that of the call, whose span is made
            span_id = derived_ids.late_span_id(trace_id, span_id, place.ordinal)
        return _span(Opening("event", self._narrow(event), place, trace_id, span_id, parent_id, run.attributes))

    def _reopen(self, run: Run, mark: OpenEvent, event: Event) -> None:
        place = Place(mark.offset, mark.ordinal)
        if event.event_type == events.SESSION_START:
            self._open_session(run, event, place)
        elif event.event_type == events.TURN_START:
            self._open_turn(run, event, place)
        else:
            # its turn may be over by now, so its parent cannot be found again
            kind = KIND_OF[event.event_type]
            _, span_id, _ = _named_ids(event) or _derived_ids(event, kind, place, trace_id=mark.trace_id)
            self._open_call(run, event, place, (mark.trace_id, span_id, mark.parent_id))


# --- spans from events ----------------------------------------------------------------------------------------------


def _span(
    opening: Opening,
    *,
    closing: Event | None = None,
    closing_place: Place | None = None,
    incomplete_end_ns: int | None = None,
) -> Span:
    event = opening.event
    start_ns = event.time_ns
    extent: Extent = "whole"
    if closing is not None:
        end_ns = closing.time_ns
    elif incomplete_end_ns is not None:
        end_ns, extent = incomplete_end_ns, "incomplete"
    else:
        end_ns, start_ns = start_ns, started_ns(event)
    fields = opening.attributes.copy()
    # an event that stands for itself has no other home, whatever its type
    homeless = event.data if opening.kind == "event" else settle(event.event_type, event.data, fields)
    opened = edge_of(event, opening.place.ordinal, homeless)
    closed = None if closing is None or closing_place is None else _settle_end(closing, closing_place, fields)
    if "name" not in fields:
        fields["name"] = event.event_type if opening.kind == "event" else opening.kind
    fields["kind"] = opening.kind
    fields["trace_id"] = opening.trace_id
    fields["span_id"] = opening.span_id
    fields["parent_id"] = opening.parent_id
    fields["session_id"] = event.session_id
    fields["run_id"] = event.run_id
    fields["turn"] = event.turn
    fields["start_ns"] = in_range(start_ns)
    fields["end_ns"] = in_range(end_ns if end_ns > start_ns else start_ns)
    fields["extent"] = extent
    if opening.link is not None:
        fields["links"] = (opening.link,)
    if event.line is not None or (event.span_id and event.span_id != opening.span_id):
        opened = with_untold(opened, event, fields)
    if closed is not None and closing is not None and not _is_of_span(closing, opening):
        closed = with_untold(closed, closing, fields)
    fields["opened"] = opened
    fields["closed"] = closed
    return Span(**fields)


def _late_span(kind: SpanKind, event: Event, place: Place, ids: _Ids, attributes: dict[str, Any]) -> Span:
    fields = attributes.copy()
    name = event.data.get("tool_name")
    fields["name"] = name if kind == "tool" and type(name) is str and name else kind
    closed = _settle_end(event, place, fields)
    trace_id, span_id, parent_id = ids
    fields |= {
        "kind": kind,
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_id": parent_id,
        "session_id": event.session_id,
        "run_id": event.run_id,
        "turn": event.turn,
        "start_ns": in_range(started_ns(event)),
        "end_ns": in_range(event.time_ns),
        "extent": "late",
    }
    return Span(**fields, closed=with_untold(closed, event, fields))


def _settle_end(event: Event, place: Place, fields: dict[str, Any]) -> Edge:
    """Put the values of a closing event into the fields of its span, and return its edge, `with_untold` left to do."""
    event_type, data = event.event_type, event.data
    repeats = repeated(event_type, data, fields)
    homeless = settle(event_type, data, fields, repeats)
    absent: tuple[str, ...] = ()
    if "error" in fields:
        fields["status"] = "error"
        if event_type == events.TOOL_RESULT:
            # the span tells no success then, and that it failed also where the event does not say so
            if "success" not in data:
                absent = ("data.success",)
            elif data["success"] is True:
                homeless = {key: data[key] for key in data if key == "success" or key in homeless}
    return edge_of(event, place.ordinal, homeless, repeats, absent)


def _is_of_span(closing: Event, opening: Opening) -> bool:
    """Whether the top level of a closing event's line says nothing but what its edge and the opening event do."""
    event = opening.event
    return (
        closing.line is None
        and closing.session_id == event.session_id
        and closing.turn == event.turn
        and closing.trace_id == event.trace_id
        and closing.parent_id == event.parent_id
    )


def _named_ids(event: Event) -> _Ids | None:
    """The ids that the event names itself."""
    return (event.trace_id, event.span_id, event.parent_id) if event.span_id else None


def _derived_ids(event: Event, kind: SpanKind, place: Place, *, trace_id: str, parent_id: str = "") -> _Ids:
    own = derived_ids.span_id(event.session_id, event.run_id, event.turn, kind, place.ordinal)
    return trace_id, own, parent_id


def _trace_outside_turns(event: Event) -> str:
    return derived_ids.trace_id(event.session_id, event.run_id, None, None)
