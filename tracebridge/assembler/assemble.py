"""`Assembler`: the stream from one session's events to spans.

Its memory follows what is open, never the session's length. What is incomplete or late is decided by the journal
alone, so that live, replayed and expected spans are always the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tracebridge import event as events
from tracebridge.assembler import derived_ids
from tracebridge.assembler.homes import KIND_OF, edge_of, repeated, settled
from tracebridge.event import Event, Json
from tracebridge.span import Link, Span, SpanError, SpanKind

DEFAULT_ORPHAN_AFTER_S: Final = 3600.0
"""How long an opening event waits for its closing one in runs that do not say so themselves."""

_NS: Final = 1_000_000_000
_LATEST_NS: Final = 2**63 - 1
_SESSION_ATTRIBUTES: Final = frozenset(("metadata", "user_id", "tags", "environment", "release", "agent_name"))


class Place(msgspec.Struct, frozen=True):
    """Where an event stands in its session's journal."""

    offset: int
    """Byte offset of its line."""
    ordinal: int
    """Its number among the session's events, from 0."""


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


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What an assembler must be told to go on where another one stopped."""

    opened: tuple[OpenEvent, ...] = ()
    runs: tuple[OpenRun, ...] = ()


class _Open:
    """An opening event that waits for its closing one."""

    __slots__ = ("attributes", "event", "kind", "link", "parent_id", "place", "span_id", "trace_id")

    def __init__(
        self,
        kind: SpanKind,
        event: Event,
        place: Place,
        ids: tuple[str, str, str],
        attributes: dict[str, Any],
        link: Link | None = None,
    ) -> None:
        self.kind = kind
        self.event = event
        self.place = place
        self.trace_id, self.span_id, self.parent_id = ids
        self.attributes = attributes
        self.link = link


class _Run:
    """What is open in one run, in the order of opening."""

    __slots__ = ("attributes", "calls", "last_ns", "orphan_after_ns", "run_id", "session", "turns")

    def __init__(self, run_id: str, last_ns: int = 0) -> None:
        self.run_id = run_id
        self.session: _Open | None = None
        self.attributes: dict[str, Any] = {}
        self.orphan_after_ns = int(DEFAULT_ORPHAN_AFTER_S * _NS)
        self.last_ns = last_ns
        self.turns: list[_Open] = []
        self.calls: list[_Open] = []

    @property
    def is_empty(self) -> bool:
        return self.session is None and not self.turns and not self.calls

    def open_turn(self, number: int) -> _Open | None:
        return next((turn for turn in reversed(self.turns) if turn.event.turn == number), None)

    def deadline_ns(self) -> int:
        """When the first of what is open here has waited long enough."""
        waits = [call.event.time_ns for call in self.calls]
        if self.session is not None or self.turns:
            waits.append(self.last_ns)
        return min(waits, default=_LATEST_NS) + self.orphan_after_ns

    def expired(self, now_ns: int) -> list[_Open]:
        """Take out what is open for longer than this run allows: all of it when the run itself is over."""
        if self.last_ns + self.orphan_after_ns < now_ns:
            return self.take_all()
        given_up = [call for call in self.calls if call.event.time_ns + self.orphan_after_ns < now_ns]
        if given_up:
            self.calls = [call for call in self.calls if call not in given_up]
        return given_up

    def take_all(self) -> list[_Open]:
        taken = [*self.calls, *reversed(self.turns)]
        if self.session is not None:
            taken.append(self.session)
        self.session, self.turns, self.calls = None, [], []
        return taken


class Assembler:
    """Makes spans of one session's events, fed in file order."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._deadline_ns = _LATEST_NS
        self._feeders: dict[str, Callable[[_Run, Event, Place], list[Span]]] = {
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
        spans = self.expire(event.time_ns) if event.time_ns > self._deadline_ns else []
        run = self._runs.get(event.run_id)
        if run is None:
            run = self._runs[event.run_id] = _Run(event.run_id)
        run.last_ns = max(run.last_ns, event.time_ns)
        spans += self._feeders.get(event.event_type, self._single)(run, event, place)
        if run.is_empty:
            self._runs.pop(event.run_id, None)
        else:
            # perhaps earlier than anything's deadline, never later: `expire` looks again at what is really over
            self._deadline_ns = min(self._deadline_ns, event.time_ns + run.orphan_after_ns)
        return spans

    def expire(self, now_ns: int) -> list[Span]:
        """Give up what has waited longer than its run allows at `now_ns`, and return it as incomplete spans."""
        spans = []
        for run in list(self._runs.values()):
            spans += [self._incomplete(opening, run) for opening in run.expired(now_ns)]
            if run.is_empty:
                del self._runs[run.run_id]
        self._deadline_ns = self.deadline_ns()
        return spans

    def deadline_ns(self) -> int:
        """The time after which `expire` has something to give up; far in the future when nothing is open."""
        return min((run.deadline_ns() for run in self._runs.values()), default=_LATEST_NS)

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
            runs=tuple(OpenRun(run_id=run.run_id, last_ns=run.last_ns) for run in self._runs.values()),
        )

    @classmethod
    def restored(cls, checkpoint: Checkpoint, opened: Iterable[Event]) -> Assembler:
        """An assembler that goes on after `checkpoint`; `opened` are the events of `checkpoint.opened`, in order."""
        assembler = cls()
        for run in checkpoint.runs:
            assembler._runs[run.run_id] = _Run(run.run_id, run.last_ns)
        for mark, event in zip(checkpoint.opened, opened, strict=True):
            assembler._reopen(assembler._runs[event.run_id], mark, event)
        assembler._deadline_ns = assembler.deadline_ns()
        return assembler

    # --- one feeder per kind of event -------------------------------------------------------------------------------

    def _start_session(self, run: _Run, event: Event, place: Place) -> list[Span]:
        # the same run id again: what was open under it can no longer be closed by its own events
        spans = [self._incomplete(opening, run) for opening in run.take_all()] if run.session else []
        self._open_session(run, event, place)
        return spans

    def _open_session(self, run: _Run, event: Event, place: Place) -> None:
        ids = self._ids(
            event, "session", place, trace_id=derived_ids.trace_id(event.session_id, run.run_id, None, None)
        )
        run.attributes = {
            name: value for name, value in settled(event.event_type, event.data).items() if name in _SESSION_ATTRIBUTES
        }
        run.orphan_after_ns = _orphan_after_ns(event)
        run.session = _Open("session", event, place, ids, run.attributes)
        # what is open already may have less time left than it had before the run said how long to wait
        self._deadline_ns = self.deadline_ns()

    def _end_session(self, run: _Run, event: Event, place: Place) -> list[Span]:
        session = run.session
        if session is None or not _is_of_session(event, session):
            return [self._late("session", run, event, place)]
        run.session = None
        spans = [self._incomplete(opening, run) for opening in run.take_all()]
        return [*spans, _span(session, closing=event, closing_place=place)]

    def _start_turn(self, run: _Run, event: Event, place: Place) -> list[Span]:
        replaced = [turn for turn in run.turns if _is_of_turn(event, turn)]
        run.turns = [turn for turn in run.turns if turn not in replaced]
        spans = [self._incomplete(turn, run) for turn in replaced]
        self._open_turn(run, event, place)
        return spans

    def _open_turn(self, run: _Run, event: Event, place: Place) -> None:
        own_trace = derived_ids.trace_id(event.session_id, run.run_id, event.turn, place.ordinal)
        ids = self._ids(event, "turn", place, trace_id=own_trace)
        link = None
        if run.session is not None and run.session.trace_id != ids[0]:
            link = Link(trace_id=run.session.trace_id, span_id=run.session.span_id)
        run.turns.append(_Open("turn", event, place, ids, run.attributes, link))

    def _end_turn(self, run: _Run, event: Event, place: Place) -> list[Span]:
        turn = next((turn for turn in reversed(run.turns) if _is_of_turn(event, turn)), None)
        if turn is None:
            return [self._late("turn", run, event, place)]
        run.turns.remove(turn)
        return [_span(turn, closing=event, closing_place=place)]

    def _start_call(self, run: _Run, event: Event, place: Place) -> list[Span]:
        replaced = [call for call in run.calls if event.has_ids and call.event.span_id == event.span_id]
        run.calls = [call for call in run.calls if call not in replaced]
        spans = [self._incomplete(call, run) for call in replaced]
        self._open_call(run, event, place)
        return spans

    def _open_call(self, run: _Run, event: Event, place: Place) -> None:
        kind = KIND_OF[event.event_type]
        run.calls.append(_Open(kind, event, place, self._child_ids(run, event, kind, place), run.attributes))

    def _end_call(self, run: _Run, event: Event, place: Place) -> list[Span]:
        kind = KIND_OF[event.event_type]
        call = _opening_of(event, [call for call in run.calls if call.kind == kind])
        if call is None:
            return [self._late(kind, run, event, place)]
        run.calls.remove(call)
        return [_span(call, closing=event, closing_place=place)]

    def _single(self, run: _Run, event: Event, place: Place) -> list[Span]:
        kind = KIND_OF.get(event.event_type, "event")
        ids = self._child_ids(run, event, kind, place)
        return [_span(_Open(kind, event, place, ids, run.attributes))]

    # --- ids and parents --------------------------------------------------------------------------------------------

    def _ids(
        self, event: Event, kind: SpanKind, place: Place, *, trace_id: str, parent_id: str = ""
    ) -> tuple[str, str, str]:
        if event.has_ids:
            return event.trace_id, event.span_id, event.parent_id
        own = derived_ids.span_id(event.session_id, event.run_id, event.turn, kind, place.ordinal)
        return trace_id, own, parent_id

    def _child_ids(self, run: _Run, event: Event, kind: SpanKind, place: Place) -> tuple[str, str, str]:
        parent = run.open_turn(event.turn) or run.session
        if parent is None:
            return self._ids(event, kind, place, trace_id=_trace_outside_turns(event))
        return self._ids(event, kind, place, trace_id=parent.trace_id, parent_id=parent.span_id)

    # --- spans that miss an event -----------------------------------------------------------------------------------

    def _incomplete(self, opening: _Open, run: _Run) -> Span:
        return _span(opening, incomplete_end_ns=run.last_ns)

    def _late(self, kind: SpanKind, run: _Run, event: Event, place: Place) -> Span:
        if event.has_ids:
            own = derived_ids.late_span_id(event.trace_id, event.span_id, place.ordinal)
            ids = (event.trace_id, own, event.span_id)
        else:
            ids = self._child_ids(run, event, kind, place)
        return _late_span(kind, event, place, ids, run.attributes)

    def _reopen(self, run: _Run, mark: OpenEvent, event: Event) -> None:
        place = Place(mark.offset, mark.ordinal)
        if event.event_type == events.SESSION_START:
            self._open_session(run, event, place)
        elif event.event_type == events.TURN_START:
            self._open_turn(run, event, place)
        else:
            self._open_call(run, event, place)
            # its turn may be over by now, so its parent cannot be found again
            run.calls[-1].trace_id, run.calls[-1].parent_id = mark.trace_id, mark.parent_id


# --- which opening event a closing one belongs to -------------------------------------------------------------------


def _is_of_session(event: Event, session: _Open) -> bool:
    return event.span_id == session.event.span_id


def _is_of_turn(event: Event, turn: _Open) -> bool:
    if event.has_ids:
        return event.span_id == turn.event.span_id
    return not turn.event.has_ids and event.turn == turn.event.turn


def _opening_of(event: Event, calls: list[_Open]) -> _Open | None:
    """The open call that a closing event ends: by id, else the likeliest of those in its turn that name none."""
    if event.has_ids:
        return next((call for call in calls if call.event.span_id == event.span_id), None)
    candidates = [call for call in calls if not call.event.has_ids and call.event.turn == event.turn]
    candidates = _same_call_id(event, candidates)
    candidates = _same_name(event, candidates)
    if not candidates:
        return None
    started_ns = event.time_ns - _duration_ns(event)
    if event.duration_ms is None:
        return candidates[0]
    return min(candidates, key=lambda call: abs(call.event.time_ns - started_ns))


def _same_call_id(event: Event, calls: list[_Open]) -> list[_Open]:
    call_id = event.data.get("call_id")
    if type(call_id) is not str:
        return calls
    return [call for call in calls if call.event.data.get("call_id") == call_id]


def _same_name(event: Event, calls: list[_Open]) -> list[_Open]:
    """Those that name the same tool; for LLM calls the model is only a hint, as an answer may come from another one."""
    key = "tool_name" if event.event_type == events.TOOL_RESULT else "model"
    named = [call for call in calls if call.event.data.get(key) == event.data.get(key)]
    return named if named or key == "tool_name" else calls


# --- spans from events ----------------------------------------------------------------------------------------------


def _span(
    opening: _Open,
    *,
    closing: Event | None = None,
    closing_place: Place | None = None,
    incomplete_end_ns: int | None = None,
) -> Span:
    event = opening.event
    start_ns = event.time_ns
    if closing is not None:
        end_ns = closing.time_ns
    elif incomplete_end_ns is not None:
        end_ns = incomplete_end_ns
    else:
        end_ns, start_ns = start_ns, start_ns - _duration_ns(event)
    fields = dict(opening.attributes)
    fields.update(settled(event.event_type, event.data))
    repeats: tuple[str, ...] = ()
    if closing is not None:
        repeats = repeated(closing.event_type, closing.data, fields)
        fields.update(_closing_fields(closing, repeats))
    fields.setdefault("name", event.event_type if opening.kind == "event" else opening.kind)
    span = Span(
        kind=opening.kind,
        trace_id=opening.trace_id,
        span_id=opening.span_id,
        parent_id=opening.parent_id,
        session_id=event.session_id,
        run_id=event.run_id,
        turn=event.turn,
        start_ns=_in_range(start_ns),
        end_ns=_in_range(max(start_ns, end_ns)),
        extent="whole" if incomplete_end_ns is None else "incomplete",
        links=(opening.link,) if opening.link else (),
        **fields,
    )
    span = msgspec.structs.replace(span, opened=edge_of(event, span, opening.place.ordinal, ()))
    if closing is None or closing_place is None:
        return span
    return msgspec.structs.replace(span, closed=edge_of(closing, span, closing_place.ordinal, repeats))


def _late_span(
    kind: SpanKind, event: Event, place: Place, ids: tuple[str, str, str], attributes: dict[str, Any]
) -> Span:
    fields = dict(attributes)
    name = event.data.get("tool_name")
    fields["name"] = name if kind == "tool" and type(name) is str and name else kind
    repeats = repeated(event.event_type, event.data, fields)
    fields.update(_closing_fields(event, repeats))
    trace_id, span_id, parent_id = ids
    span = Span(
        kind=kind,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        session_id=event.session_id,
        run_id=event.run_id,
        turn=event.turn,
        start_ns=_in_range(event.time_ns - _duration_ns(event)),
        end_ns=_in_range(event.time_ns),
        extent="late",
        **fields,
    )
    return msgspec.structs.replace(span, closed=edge_of(event, span, place.ordinal, repeats))


def _closing_fields(event: Event, repeats: tuple[str, ...]) -> dict[str, Any]:
    said = {key: value for key, value in event.data.items() if key not in repeats} if repeats else event.data
    fields = settled(event.event_type, said)
    if isinstance(fields.get("error"), SpanError):
        fields["status"] = "error"
    return fields


def _trace_outside_turns(event: Event) -> str:
    return derived_ids.trace_id(event.session_id, event.run_id, None, None)


def _duration_ns(event: Event) -> int:
    duration = event.duration_ms
    if duration is None or not math.isfinite(duration) or duration < 0:
        return 0
    return int(duration * 1_000_000)


def _orphan_after_ns(event: Event) -> int:
    seconds: Json = event.data.get("orphan_after_s")
    if type(seconds) in (int, float) and math.isfinite(seconds) and seconds > 0:
        return int(seconds * _NS)
    return int(DEFAULT_ORPHAN_AFTER_S * _NS)


def _in_range(time_ns: int) -> int:
    """Backends hold times from 1970 on in 63 bits of nanoseconds."""
    return min(max(time_ns, 0), _LATEST_NS)
