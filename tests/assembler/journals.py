"""Hypothesis strategies for journals: the JSON objects of one session's lines, in file order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tracebridge.assembler.homes import HOMES, REPEATS
from tracebridge.event import EVENT_TYPES

START = datetime(2026, 2, 6, 22, 10, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
span_ids = st.sampled_from([f"{number:016x}" for number in range(1, 6)])
trace_ids = st.sampled_from([f"{number:032x}" for number in range(1, 4)])
run_ids = st.sampled_from(["run-a", "run-b", ""])

HOME_KEYS = sorted(
    {home.key for homes in HOMES.values() for home in homes}
    | {key for repeats in REPEATS.values() for key, _ in repeats}
    | {"orphan_after_s", "stage", "total_turns", "name"}
)
FITTING_VALUES = st.sampled_from(
    [
        *("gpt-4o", "search", "", "why", True, False, 0.25, 1, 1.0, 30, None),
        {"prompt": 3, "completion": 4},
        ["a", "b"],
        {"type": "ValueError", "message": "no"},
        {"name": "greet", "version": 3},
        {"total": 0.5},
    ]
)


GRACE_MS = 60_000


def timestamp(milliseconds: int) -> str:
    return (START + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@st.composite
def any_event(draw: st.DrawFn) -> dict[str, Any]:
    """An event with any content whatever: nothing about it needs to make sense."""
    event: dict[str, Any] = {
        # few distinct times, so that equal ones and ones far apart both happen often
        "timestamp": timestamp(draw(st.sampled_from([0, 1, 1, 2, 500, 40_000, 3_600_000, 3_600_001, 9_000_000]))),
        "event_type": draw(st.sampled_from([*EVENT_TYPES, "custom.event", ""])),
        "session_id": "s",
        "run_id": draw(run_ids),
        "turn": draw(st.integers(0, 3)),
        "duration_ms": draw(st.none() | st.floats(0, 1e7) | st.integers(-1, 10**7)),
        "data": draw(st.dictionaries(st.sampled_from(HOME_KEYS), FITTING_VALUES | json_values, max_size=5)),
    }
    if draw(st.booleans()):
        event |= {"seq": draw(st.integers(0, 99)), "trace_id": draw(trace_ids), "span_id": draw(span_ids)}
        if draw(st.booleans()):
            event["parent_id"] = draw(span_ids)
    for name in draw(st.sets(st.sampled_from(["run_id", "turn", "duration_ms", "data"]), max_size=2)):
        if draw(st.booleans()):
            event[name] = None
        else:
            del event[name]
    event |= draw(
        st.dictionaries(st.sampled_from(["host", "trace_id", "span_id", "parent_id", "seq"]), json_values, max_size=2)
    )
    return event


any_journal = st.lists(any_event(), max_size=14)


@st.composite
def agent_journal(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What agents write: runs of turns of calls, nested and parallel, interleaved, some ends missing or late."""
    with_ids = draw(st.booleans())
    writers = [_run(draw, name, with_ids) for name in draw(st.sampled_from([["run-a"], ["run-a", "run-b"]]))]
    journal, clock = [], 0
    while any(writers):
        writer = draw(st.sampled_from([writer for writer in writers if writer]))
        clock += draw(st.sampled_from([0, 1, 7, 50, 400]))
        journal.append({"timestamp": timestamp(clock), **writer.pop(0)})
    if draw(st.booleans()):
        journal.insert(draw(st.integers(0, len(journal))), journal.pop())
    return [event for event in journal if draw(st.integers(0, 11)) > 0]


class Written(NamedTuple):
    """A line of a journal, and when it was written by the wall clock, in milliseconds after `START`."""

    at_ms: int
    event: dict[str, Any]


@st.composite
def lived_journal(draw: st.DrawFn) -> list[Written]:
    """Any journal as it came to be: each line is written no later than the grace after its time.

    Its times may run backwards, or be ahead of the clock. Runs say how patient they are, names come again, sub-agents
    have turns inside of calls, and there are gaps in which things grow old.
    """
    lines = draw(any_journal | agent_journal() | familiar_journal())
    at_ms, journal = 10_000_000, []
    for line in lines:
        at_ms += draw(st.sampled_from([0, 1, 1, 500, 1_000, 30_000, 61_000, 3_600_000, 3_661_000, 20_000_000]))
        lag_ms = draw(st.sampled_from([0, 0, 0, 1, 999, 59_000, GRACE_MS, -1, -400_000]))
        event = {**line, "timestamp": timestamp(at_ms - lag_ms)}
        if line["event_type"] == "session.start" and (
            patience := draw(st.sampled_from([None, 0.5, 90, 10_000, 1_000_000]))
        ):
            event["data"] = {**(line.get("data") or {}), "orphan_after_s": patience, "user_id": "u"}
        journal.append(Written(at_ms, event))
    return journal


@st.composite
def familiar_journal(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Well-formed lines of few names in any order: what meets its like, and what does not."""
    with_ids = draw(st.booleans())
    journal = []
    for _ in range(draw(st.integers(0, 16))):
        event_type = draw(st.sampled_from(EVENT_TYPES))
        event: dict[str, Any] = {
            "event_type": event_type,
            "session_id": "s",
            "run_id": draw(st.sampled_from(["run-a", "run-b"])),
            "turn": draw(st.integers(0, 2)),
            "duration_ms": draw(st.sampled_from([None, 0, 1000.0, 61_000, 4e6])),
            "data": {"model": draw(st.sampled_from(["m", "n"])), "tool_name": draw(st.sampled_from(["t", "u"]))},
        }
        if draw(st.booleans()):
            event["data"]["call_id"] = draw(st.sampled_from(["call-1", "call-2"]))
        if with_ids:
            event |= {"seq": 0, "trace_id": draw(trace_ids), "span_id": draw(span_ids)}
            if draw(st.booleans()):
                event["parent_id"] = draw(span_ids)
        journal.append(event)
    return journal


def _run(draw: st.DrawFn, run_id: str, with_ids: bool) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    seed = draw(st.integers(1, 1000)) * 1_000_000

    def line(event_type: str, turn: int, data: dict[str, Any], span: int, parent: int | None, ms: Any = None) -> None:
        event = {"event_type": event_type, "session_id": "s", "run_id": run_id, "turn": turn}
        event |= {"duration_ms": ms, "data": data}
        if with_ids:
            event |= {"seq": len(lines), "trace_id": f"{seed + turn + 1:032x}", "span_id": f"{seed + span:016x}"}
            if parent is not None:
                event["parent_id"] = f"{seed + parent:016x}"
        lines.append(event)

    line("session.start", 0, {"metadata": {"plan": draw(json_values)}, "tags": ["x", "y"]}, 1, None)
    for turn in range(1, draw(st.integers(1, 3)) + 1):
        turn_span = turn * 100
        line("turn.start", turn, {"user_input": draw(json_values)}, turn_span, None)
        calls: list[Any] = []
        for number in range(draw(st.integers(0, 3))):
            span = turn_span + number + 1
            if draw(st.booleans()):
                line("llm.request", turn, {"model": "gpt-4o", "messages": draw(json_values)}, span, turn_span)
                answer = {"model": "gpt-4o", "content": draw(json_values), "tokens": {"prompt": 1, "completion": 2}}
                calls.append(("llm.response", turn, answer, span, turn_span, draw(st.floats(0, 1e4))))
            else:
                name = draw(st.sampled_from(["search", "book"]))
                line("tool.call", turn, {"tool_name": name, "args": draw(json_values)}, span, turn_span)
                result = {"tool_name": name, "success": draw(st.booleans()), "result": draw(json_values)}
                calls.append(("tool.result", turn, result, span, turn_span, draw(st.none() | st.floats(0, 1e4))))
        for call in draw(st.permutations(calls)):
            line(*call)
            if call[0] == "llm.response" and draw(st.integers(0, 3)) == 0:
                # logged once more: with the call's id, or with one of its own, as the recording gives it
                event_type, number, data, span, parent, ms = call
                line(event_type, number, data, draw(st.sampled_from([span, turn_span + 60])), parent, ms)
        if draw(st.booleans()):
            line("thinking", turn, {"content": draw(json_values), "stage": "plan"}, turn_span + 50, turn_span)
        line("turn.end", turn, {"output": draw(json_values)}, turn_span, None, 12.5)
    line("session.end", 3, {"outcome": "solved", "total_turns": 3}, 1, None, 99.0)
    return lines
