"""Spans that somebody else sent, made into spans that hold events: the best journal that can be told of them. Pure.

Each span keeps its ids and its parent; what of it has no home in the events of its kind stands in their `data` under
the field's name. An agent's span, and any other root, is a turn; what is neither turn, LLM call nor tool call becomes
an event of the type `span`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from tracebridge.assembler.derived_ids import span_id, trace_id
from tracebridge.assembler.homes import CLOSING_TYPE, HOMES, OPENING_TYPE
from tracebridge.event import Json, is_span_id, is_trace_id
from tracebridge.span import Edge, Span, SpanError, SpanKind
from tracebridge.usage import count_tokens

SPAN_EVENT: Final = "span"
"""The type of the events that stand for spans of any other kind."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_NS: Final = 2**63 - 1
_MS: Final = 1_000_000
_PATIENCE_S: Final = 3600
_ATTRIBUTES: Final = ("user_id", "agent_name", "environment", "release", "tags")
_CONTENT: Final = (
    *("input", "output", "model", "response_model", "provider", "model_parameters", "prompt", "tool_definitions"),
    *("tool_calls", "thinking", "finish_reason", "response_id", "time_to_first_token_ms", "usage", "cost"),
    *("tool_call_id", "error"),
)
_BARE: Final = Span(kind="event", trace_id="", span_id="", name="", start_ns=0, end_ns=0, session_id="")

_Id = tuple[str, str]


class Adopted(NamedTuple):
    """Spans that hold events, and what of the originals they do not tell."""

    spans: list[Span]
    shortfalls: dict[str, int]


class _Tree:
    """Who is whose parent, which spans are turns, and in which turn each span is."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = {(span.trace_id, span.span_id): span for span in spans}
        self._depths: dict[_Id, int] = {}
        for id_ in self._spans:
            self._place(id_)
        heads = [id_ for id_ in self._spans if self.is_root(id_) or self.is_turn(id_)]
        heads.sort(key=lambda id_: (self._spans[id_].start_ns, id_))
        self._numbers = {id_: number for number, id_ in enumerate(heads, 1)}
        self.turns = len(heads)

    def is_root(self, id_: _Id) -> bool:
        return self._depths[id_] == 0

    def is_turn(self, id_: _Id) -> bool:
        kind = self._spans[id_].kind
        return kind in ("turn", "session") or (kind == "event" and self.is_root(id_))

    def depth(self, id_: _Id) -> int:
        return self._depths[id_]

    def number(self, id_: _Id) -> int:
        """The number of the turn that a span is, or is in."""
        while id_ not in self._numbers:
            span = self._spans[id_]
            id_ = (span.trace_id, span.parent_id)
        return self._numbers[id_]

    def _place(self, id_: _Id) -> None:
        """Find how deep a span lies; of spans that are one another's parents, the one that is met first is a root."""
        way: list[_Id] = []
        seen: set[_Id] = set()
        while id_ in self._spans and id_ not in self._depths and id_ not in seen:
            way.append(id_)
            seen.add(id_)
            span = self._spans[id_]
            id_ = (span.trace_id, span.parent_id)
        depth = self._depths.get(id_, -1)
        for below in reversed(way):
            depth += 1
            self._depths[below] = depth


class _Ids:
    """The ids under which spans are recorded: their own, where these are W3C ids that no other span has."""

    def __init__(self) -> None:
        self._given: dict[_Id, _Id] = {}
        self._taken: dict[str, _Id] = {}
        self.replaced = 0

    def add(self, id_: _Id) -> None:
        trace, span = id_
        own_trace = trace if is_trace_id(trace) else _hashed(32, "trace", trace)
        is_free = is_span_id(span) and self._taken.setdefault(span, id_) == id_
        own_span = span if is_free else _hashed(16, "span", trace, span)
        self._given[id_] = (own_trace, own_span)
        self.replaced += self._given[id_] != id_

    def of(self, id_: _Id) -> _Id:
        return self._given[id_]

    def parent(self, trace: str, parent: str) -> str:
        """The id of a parent, which need not be among the spans."""
        if (trace, parent) in self._given:
            return self._given[trace, parent][1]
        return parent if is_span_id(parent) else ""


class _Moment(NamedTuple):
    """Where an event stands: by time, and at one time such that what is inside begins later and ends earlier."""

    time_ns: int
    is_end: bool
    depth: int
    number: int


def adopt(session_id: str, spans: Sequence[Span]) -> Adopted:
    """Give the spans of one session, none of them tracebridge's and each once, the events that tell of them."""
    in_order = sorted(spans, key=lambda span: (span.start_ns, span.trace_id, span.span_id))
    tree, ids = _Tree(in_order), _Ids()
    for span in in_order:
        ids.add((span.trace_id, span.span_id))
    run_id = f"run-{_hashed(12, 'run', session_id)}"
    shared = _shared_attributes(in_order)
    shortfalls: Counter[str] = Counter(ids=ids.replaced)
    adopted = [_session_span(session_id, run_id, in_order, shared, tree.turns)]
    depths = [-1]
    for span in in_order:
        id_ = (span.trace_id, span.span_id)
        if span.parent_id and tree.is_root(id_):
            shortfalls["parent"] += 1
        kind = _kind_of(span, is_turn=tree.is_turn(id_))
        shortfalls["kind"] += kind == "event"
        own_trace, own_span = ids.of(id_)
        placed = msgspec.structs.replace(
            span,
            kind=kind,
            trace_id=own_trace,
            span_id=own_span,
            parent_id=ids.parent(span.trace_id, span.parent_id),
            remote_parent=kind == "turn" and bool(span.parent_id) and tree.is_root(id_),
            session_id=session_id,
            run_id=run_id,
            turn=tree.number(id_),
            start_ns=_in_range(span.start_ns),
            end_ns=_in_range(max(span.start_ns, span.end_ns)),
            extent="whole",
            error=SpanError(message="") if span.error is None and span.status == "error" else span.error,
            usage=_usual_usage(span.usage),
        )
        adopted.append(_with_events(placed, _differing(span, shared)))
        depths.append(tree.depth(id_))
    return Adopted(_in_places(adopted, depths), dict(+shortfalls))


def _kind_of(span: Span, *, is_turn: bool) -> SpanKind:
    if is_turn:
        return "turn"
    return span.kind if span.kind in ("llm", "tool", "thinking") else "event"


def _session_span(session_id: str, run_id: str, spans: Sequence[Span], shared: Mapping[str, Any], turns: int) -> Span:
    start_ns = min(_in_range(span.start_ns) for span in spans)
    end_ns = max(_in_range(max(span.start_ns, span.end_ns)) for span in spans)
    # else a session that somebody came back to after an hour would be taken for one that nobody ended
    lasted_s = -(-(end_ns - start_ns) // 1_000_000_000)
    patience: dict[str, Json] = {"orphan_after_s": lasted_s + 1} if lasted_s >= _PATIENCE_S else {}
    return Span(
        kind="session",
        trace_id=trace_id(session_id, run_id, None, None),
        span_id=span_id(session_id, run_id, 0, "session", 0),
        name="session",
        start_ns=start_ns,
        end_ns=end_ns,
        session_id=session_id,
        run_id=run_id,
        opened=_edge(start_ns, None, patience),
        closed=_edge(end_ns, _milliseconds(end_ns - start_ns), {"total_turns": turns}),
        **shared,
    )


def _with_events(span: Span, differing: dict[str, Json]) -> Span:
    """The span with the edges of its events."""
    took_ms = _milliseconds(span.end_ns - span.start_ns)
    beside: dict[str, Json] = dict(differing)
    if span.metadata:
        beside["metadata"] = span.metadata
    if span.links:
        beside["links"] = [msgspec.to_builtins(link) for link in span.links]
    if span.kind == "tool":
        # a field that equals its default is not told otherwise
        beside["tool_name"] = span.name
    elif span.name not in ("", span.kind):
        beside["name"] = span.name
    told = _fields_told(span.kind)
    rest = {
        field: msgspec.to_builtins(value)
        for field in _CONTENT
        if field not in told and (value := getattr(span, field)) != getattr(_BARE, field)
    }
    bare: dict[str, Any] = {field: getattr(_BARE, field) for field in ("links", "metadata")}
    if span.kind in ("event", "thinking"):
        name = SPAN_EVENT if span.kind == "event" else span.kind
        opened = _edge(span.end_ns, took_ms, beside | rest)
        return msgspec.structs.replace(span, name=name, opened=opened, closed=None, **bare)
    if span.kind == "tool":
        bare["status"] = "ok" if span.error is None else "error"
    closed = _edge(span.end_ns, took_ms, rest | _said_again(span))
    return msgspec.structs.replace(span, opened=_edge(span.start_ns, None, beside), closed=closed, **bare)


def _said_again(span: Span) -> dict[str, Json]:
    """What the closing event says though the opening one has said it: the usual recipes for jq look for it there."""
    if span.kind == "tool":
        return {"tool_name": span.name} | ({"call_id": span.tool_call_id} if span.tool_call_id else {})
    model = span.response_model or span.model
    return {"model": model} if span.kind == "llm" and model else {}


def _fields_told(kind: SpanKind) -> frozenset[str]:
    types = (OPENING_TYPE.get(kind, ""), CLOSING_TYPE.get(kind, ""))
    return frozenset(home.field for type_ in types for home in HOMES.get(type_, ()))


def _in_places(spans: Sequence[Span], depths: Sequence[int]) -> list[Span]:
    """The spans with the ordinals of their events, by time."""
    moments: list[tuple[_Moment, str]] = []
    for number, (span, depth) in enumerate(zip(spans, depths, strict=True)):
        if span.closed is None:
            moments.append((_Moment(span.end_ns, False, depth, number), "opened"))
            continue
        moments.append((_Moment(span.start_ns, False, depth, number), "opened"))
        moments.append((_Moment(span.end_ns, True, -depth, number), "closed"))
    moments.sort()
    edges: list[dict[str, Edge]] = [{} for _ in spans]
    for ordinal, (moment, which) in enumerate(moments):
        edge: Edge = getattr(spans[moment.number], which)
        edges[moment.number][which] = msgspec.structs.replace(edge, ordinal=ordinal)
    return [msgspec.structs.replace(span, **of_span) for span, of_span in zip(spans, edges, strict=True)]


def _shared_attributes(spans: Sequence[Span]) -> dict[str, Any]:
    """What the session says of itself: of each attribute, the first value that there is."""
    return {
        name: next((value for span in spans if (value := getattr(span, name))), getattr(_BARE, name))
        for name in _ATTRIBUTES
    }


def _differing(span: Span, shared: Mapping[str, Any]) -> dict[str, Json]:
    """The attributes in which a span differs from its session."""
    return {
        name: msgspec.to_builtins(value)
        for name in _ATTRIBUTES
        if (value := getattr(span, name)) and value != shared[name]
    }


def _usual_usage(usage: dict[str, Json]) -> dict[str, Json]:
    """The counts with the names that the original has for them beside those that they came under."""
    counts = count_tokens(usage)
    usual = {"prompt": counts.input, "completion": counts.output}
    return {name: count for name, count in usual.items() if count is not None} | usage


def _edge(time_ns: int, duration_ms: float | None, fields: dict[str, Json]) -> Edge:
    return Edge(ordinal=0, timestamp=_text(time_ns), duration_ms=duration_ms, ids=True, fields=fields)


def _text(time_ns: int) -> str:
    """A time as ISO 8601 in UTC, with milliseconds, or with nanoseconds where it needs them."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    moment = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{moment}.{rest_ns // _MS:03d}Z" if rest_ns % _MS == 0 else f"{moment}.{rest_ns:09d}Z"


def _in_range(time_ns: int) -> int:
    return min(max(time_ns, 0), _LATEST_NS)


def _milliseconds(duration_ns: int) -> float:
    return duration_ns / _MS


def _hashed(digits: int, *parts: str) -> str:
    text = "\0".join(("tracebridge", *parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:digits]
