"""`Opening`: an event that waits for the one that closes its span, and those that wait, found without a search.

What can be open is not bounded: ten thousand calls may run at once, and a writer may never end a turn. So each
question that a closing event asks is a look into an index.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tracebridge.assembler.deadlines import LATEST_NS, Deadlines
from tracebridge.event import Event, Json
from tracebridge.span import Link, SpanKind


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands in its session's journal."""

    offset: int
    """Byte offset of its line."""
    ordinal: int
    """Its number among the session's events, from 0."""


class Opening(msgspec.Struct, frozen=True, gc=False):
    """An opening event that waits for its closing one."""

    kind: SpanKind
    event: Event
    place: Place
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    """Fields of the span that all spans of its run have."""
    link: Link | None = None


class OpenTurns:
    """The open turns of a run, in the order of opening: each is added with a higher ordinal than those before."""

    __slots__ = ("_by_name", "_by_number", "_turns")

    def __init__(self) -> None:
        self._turns: dict[int, Opening] = {}
        self._by_name: dict[str | int, int] = {}
        # several turns with ids may have one number
        self._by_number: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Opening]:
        return iter(self._turns.values())

    def add(self, turn: Opening) -> None:
        """Add a turn; no open one has its name."""
        ordinal = turn.place.ordinal
        self._turns[ordinal] = turn
        self._by_name[_turn_name(turn.event)] = ordinal
        self._by_number.setdefault(turn.event.turn, []).append(ordinal)

    def take(self, event: Event) -> Opening | None:
        """Take out the turn that an event of a turn's start or end names: by id, else by number."""
        ordinal = self._by_name.pop(_turn_name(event), None)
        if ordinal is None:
            return None
        turn = self._turns.pop(ordinal)
        same_number = self._by_number[turn.event.turn]
        del same_number[bisect_left(same_number, ordinal)]
        if not same_number:
            del self._by_number[turn.event.turn]
        return turn

    def latest(self, number: int) -> Opening | None:
        """The open turn of this number; the one that was opened last, if there are several."""
        same_number = self._by_number.get(number)
        return self._turns[same_number[-1]] if same_number else None


class OpenCalls:
    """The open calls of a run, in the order of opening: each is added with a higher ordinal than those before."""

    __slots__ = ("_by_id", "_calls", "_groups", "_names", "_times")

    def __init__(self) -> None:
        self._calls: dict[int, Opening] = {}
        self._times: Deadlines[int] = Deadlines()
        self._by_id: dict[str, int] = {}
        self._groups: dict[_GroupName, _Group] = {}
        self._names: dict[int, list[_GroupName]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Opening]:
        return iter(self._calls.values())

    def add(self, call: Opening, event: Event) -> None:
        """Add a call; `event` is its opening event as it was recorded, and no open call has its id."""
        ordinal = call.place.ordinal
        self._calls[ordinal] = call
        self._times.set(ordinal, in_range(event.time_ns))
        if event.span_id:
            self._by_id[event.span_id] = ordinal
            return
        names = self._names[ordinal] = _groups_of(event, call.kind)
        for name in names:
            group = self._groups.get(name)
            if group is None:
                group = self._groups[name] = _Group()
            group.add(event.time_ns, ordinal)

    def take_same_id(self, event: Event) -> Opening | None:
        """Take out the call of any kind that has the event's id."""
        ordinal = self._by_id.get(event.span_id)
        return None if ordinal is None else self._take(ordinal)

    def take_closed_by(self, event: Event, kind: SpanKind) -> Opening | None:
        """Take out the call that a closing event, as it was recorded, ends.

        It is found by id, else it is the likeliest of those in the event's turn that name none: with its call id, of
        its name, opened about when the event says, or else first. The model of an answer is only a hint, as it may
        come from another one than was asked.
        """
        if event.span_id:
            ordinal = self._by_id.get(event.span_id)
            return self._take(ordinal) if ordinal is not None and self._calls[ordinal].kind == kind else None
        group = self._likeliest(event, kind)
        if group is None:
            return None
        return self._take(group.first() if event.duration_ms is None else group.nearest(started_ns(event)))

    def earliest_ns(self) -> int:
        """When the first of the open calls began; far in the future when there is none."""
        return self._times.earliest_ns()

    def take_before(self, time_ns: int) -> list[Opening]:
        """Take out the calls that began before `time_ns`, earliest first."""
        # those that are due are out of the times already
        return [self._take(ordinal) for ordinal in self._times.take_before(time_ns)]

    def _take(self, ordinal: int) -> Opening:
        call = self._calls.pop(ordinal)
        self._times.discard(ordinal)
        if call.event.span_id:
            del self._by_id[call.event.span_id]
            return call
        for name in self._names.pop(ordinal):
            group = self._groups[name]
            group.remove(call.event.time_ns, ordinal)
            if group.is_empty:
                del self._groups[name]
        return call

    def _likeliest(self, event: Event, kind: SpanKind) -> _Group | None:
        call_id = event.data.get("call_id")
        wanted = call_id if type(call_id) is str else _ANY
        group = self._groups.get((kind, event.turn, wanted, _called(event, kind)))
        if group is None and kind == "llm":
            group = self._groups.get((kind, event.turn, wanted, _ANY))
        return group


def in_range(time_ns: int) -> int:
    """A time as backends and the state can hold it: from 1970 on, in 63 bits of nanoseconds."""
    return time_ns if 0 <= time_ns <= LATEST_NS else min(max(time_ns, 0), LATEST_NS)


def started_ns(event: Event) -> int:
    """When the span of an event began, as far as the event itself says."""
    return event.time_ns - duration_ns(event)


def duration_ns(event: Event) -> int:
    """How long the span of an event took, as far as the event itself says."""
    duration = event.duration_ms
    # NaN gives nothing
    if duration is None or not duration > 0:
        return 0
    return int(min(duration, LATEST_NS // 1_000_000) * 1_000_000)


_Name = str | tuple[str] | None
_GroupName = tuple[SpanKind, int, _Name, _Name]
_ANY: Final = ("any",)


class _Group:
    """Calls without ids that a closing event may mean: in the order of opening, and in that of their times."""

    __slots__ = ("_ordinals", "_times")

    def __init__(self) -> None:
        self._ordinals: list[int] = []
        self._times: list[tuple[int, int]] = []

    @property
    def is_empty(self) -> bool:
        return not self._ordinals

    def add(self, time_ns: int, ordinal: int) -> None:
        self._ordinals.append(ordinal)
        insort(self._times, (time_ns, ordinal))

    def remove(self, time_ns: int, ordinal: int) -> None:
        del self._ordinals[bisect_left(self._ordinals, ordinal)]
        del self._times[bisect_left(self._times, (time_ns, ordinal))]

    def first(self) -> int:
        return self._ordinals[0]

    def nearest(self, time_ns: int) -> int:
        """The call that began nearest to `time_ns`; the one that was opened first, if there are several."""
        after = bisect_left(self._times, (time_ns, -1))
        near = self._times[after : after + 1]
        if after > 0:
            before_ns, _ = self._times[after - 1]
            near.append(self._times[bisect_left(self._times, (before_ns, -1))])
        return min((abs(began_ns - time_ns), ordinal) for began_ns, ordinal in near)[1]


def _turn_name(event: Event) -> str | int:
    return event.span_id or event.turn


def _groups_of(event: Event, kind: SpanKind) -> list[_GroupName]:
    """Those in which the closing events look that may end the call."""
    called = _called(event, kind)
    call_id = event.data.get("call_id")
    ids: list[_Name] = [_ANY, call_id] if type(call_id) is str else [_ANY]
    names: list[_Name] = [called, _ANY] if kind == "llm" else [called]
    return [(kind, event.turn, known_as, name) for known_as in ids for name in names]


def _called(event: Event, kind: SpanKind) -> _Name:
    name: Json = event.data.get("model" if kind == "llm" else "tool_name")
    if name is None or type(name) is str:
        return name
    # a name can be any JSON value
    return (json.dumps(name, sort_keys=True),)
