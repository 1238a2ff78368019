"""The kinds of defect, each a change of spans that a backend holds and the findings that it must lead to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from tracebridge.span import Span
from tracebridge.validation import Finding

Change = Callable[[Span, random.Random], Span]
replace = msgspec.structs.replace


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to the backend, and what must be found."""

    taken: list[Span] = []
    """Spans that are taken away."""
    put: list[Span] = []
    """Spans that are stored besides."""
    counts: Counter[str]
    """By class, how many findings there must be."""
    fields: frozenset[str] = frozenset()
    """The fields in which a span that differs must be said to differ, one of them at least."""

    def is_found(self, findings: list[Finding]) -> bool:
        """Whether these findings, of the spans that it concerns, are what must be found."""
        named = {difference.field for finding in findings for difference in finding.differences}
        is_named = not self.fields or bool(named & self.fields)
        return Counter(finding.kind for finding in findings) == self.counts and is_named

    @property
    def span_ids(self) -> set[tuple[str, str]]:
        """The spans that it concerns."""
        return {(span.trace_id, span.span_id) for span in (*self.taken, *self.put)}


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of defect."""

    name: str
    plant: Callable[[list[Span], Span, random.Random], Planted]
    """Takes the spans of a session, one of them, and chance."""
    concerns: Callable[[Span], bool] = lambda span: True
    takes_session: bool = False
    """Whether it concerns more of the session than the one span."""


def changed(name: str, fields: str, change: Change, concerns: Callable[[Span], bool] = lambda _: True) -> Defect:
    """A defect by which a span is stored otherwise than it was sent."""

    def plant(_: list[Span], span: Span, chance: random.Random) -> Planted:
        other = change(span, chance)
        assert other != span, name
        return Planted(taken=[span], put=[other], counts=Counter(different=1), fields=frozenset(fields.split()))

    return Defect(name=name, plant=plant, concerns=concerns)


def _missing(_: list[Span], span: Span, __: random.Random) -> Planted:
    return Planted(taken=[span], counts=Counter(missing=1))


def _extra(_: list[Span], span: Span, chance: random.Random) -> Planted:
    return Planted(put=[replace(span, span_id=_id(16, chance))], counts=Counter(extra=1))


def _duplicate(_: list[Span], span: Span, chance: random.Random) -> Planted:
    copies = chance.randint(1, 3)
    return Planted(put=[span] * copies, counts=Counter(duplicate=copies))


def _foreign(_: list[Span], span: Span, chance: random.Random) -> Planted:
    theirs = Span(
        kind="event",
        trace_id=span.trace_id,
        span_id=_id(16, chance),
        parent_id=span.span_id,
        name="GET /",
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        session_id=span.session_id,
    )
    return Planted(put=[theirs], counts=Counter(foreign=1))


def _wrong_trace(_: list[Span], span: Span, chance: random.Random) -> Planted:
    return Planted(taken=[span], put=[replace(span, trace_id=_id(32, chance))], counts=Counter(missing=1, extra=1))


def _session_missing(spans: list[Span], _: Span, __: random.Random) -> Planted:
    return Planted(taken=spans, counts=Counter(missing=len(spans)))


def _turns_merged(spans: list[Span], _: Span, __: random.Random) -> Planted:
    first, second = [span for span in spans if span.kind == "turn"][:2]
    moved = [span for span in spans if span.trace_id == second.trace_id]
    merged = [replace(span, trace_id=first.trace_id) for span in moved]
    return Planted(taken=moved, put=merged, counts=Counter(missing=len(moved), extra=len(moved)))


def _id(digits: int, chance: random.Random) -> str:
    return f"{chance.getrandbits(4 * digits) | 1:0{digits}x}"


def _deep_character(span: Span, chance: random.Random) -> Span:
    messages: Any = msgspec.json.decode(msgspec.json.encode(span.input))
    text = messages[-1]["content"][0]["text"]
    place = chance.randrange(len(text) // 2, len(text))
    messages[-1]["content"][0]["text"] = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
    return replace(span, input=messages)


def _counted_wrong(span: Span, chance: random.Random) -> Span:
    name = chance.choice(sorted(span.usage))
    return replace(span, usage=span.usage | {name: span.usage[name] + chance.choice((-1, 1))})


def _later(nanoseconds: int) -> Change:
    return lambda span, _: replace(span, start_ns=span.start_ns + nanoseconds, end_ns=span.end_ns + nanoseconds)


def _kind(*kinds: str) -> Callable[[Span], bool]:
    return lambda span: span.kind in kinds


DEFECTS = (
    Defect(name="missing", plant=_missing),
    Defect(name="extra", plant=_extra),
    Defect(name="duplicate", plant=_duplicate),
    changed(
        "wrong parent", "parent_id", lambda span, chance: replace(span, parent_id=_id(16, chance)), _kind("llm", "tool")
    ),
    changed(
        "input and output swapped",
        "input output",
        lambda span, _: replace(span, input=span.output, output=span.input),
        _kind("turn"),
    ),
    changed("one character deep in a long input", "input", _deep_character, _kind("llm")),
    changed("model", "model", lambda span, _: replace(span, model="gpt-4o-mini"), _kind("llm")),
    changed("usage ±1", "usage", _counted_wrong, _kind("llm")),
    changed(
        "cost times 1.01",
        "cost",
        lambda span, _: replace(span, cost={key: value * 1.01 for key, value in span.cost.items()}),
        _kind("llm"),
    ),
    changed(
        "level lost",
        "status",
        lambda span, _: replace(span, status="unset", error=None),
        lambda span: span.status == "error",
    ),
    changed(
        "session missing on one child", "session_id", lambda span, _: replace(span, session_id=""), _kind("llm", "tool")
    ),
    changed("tag order", "tags", lambda span, _: replace(span, tags=tuple(reversed(span.tags)))),
    changed("time +1 ms", "start_ns end_ns", _later(1_000_000)),
    changed("time +1 s", "start_ns end_ns", _later(1_000_000_000)),
    changed("content truncated", "output", lambda span, _: replace(span, output=span.output[:-20]), _kind("llm")),
    changed("metadata truncated", "metadata", lambda span, _: replace(span, metadata={**span.metadata, "plan": "p"})),
    changed("metadata entry lost", "metadata", lambda span, _: replace(span, metadata={})),
    changed("environment", "environment", lambda span, _: replace(span, environment="staging")),
    changed("name", "name", lambda span, _: replace(span, name="serch"), _kind("tool")),
    changed("status", "status error", lambda span, _: replace(span, status="error"), lambda span: span.status == "ok"),
    changed("user", "user_id", lambda span, _: replace(span, user_id="bob")),
    Defect(name="wrong trace", plant=_wrong_trace, concerns=_kind("llm", "tool")),
    Defect(name="turns merged", plant=_turns_merged, takes_session=True),
    Defect(name="whole session missing", plant=_session_missing, takes_session=True),
    Defect(name="a span of another project", plant=_foreign, concerns=_kind("turn")),
)
"""Every kind. A span that is stored otherwise was written by the same mapping as the others, so what is visible of it
and what travels in its remainder agree: the harder case. That a visible field alone was edited is in
`tests/acceptance/test_findings.py`."""
