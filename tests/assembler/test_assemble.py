"""Law 1 and what follows from it, for any journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.assembler.journals import agent_journal, any_journal, timestamp
from tracebridge.assembler import Assembler, Checkpoint, Place, disassemble
from tracebridge.event import event_from_json
from tracebridge.span import Edge, Span

FAR_FUTURE_NS = 2**62
journals = any_journal | agent_journal()


def assemble(journal: list[dict[str, Any]]) -> list[Span]:
    assembler = Assembler()
    spans = [span for place, line in placed(journal) for span in assembler.feed(event_from_json(line), place)]
    spans += assembler.expire(FAR_FUTURE_NS)
    assert assembler.is_idle
    return spans


def placed(journal: list[dict[str, Any]]) -> list[tuple[Place, dict[str, Any]]]:
    return [(Place(offset=number * 100, ordinal=number), line) for number, line in enumerate(journal)]


def as_text(events: list[dict[str, Any]]) -> str:
    """JSON text, in which 1, 1.0 and true differ."""
    return json.dumps(events, sort_keys=True)


def kinds_of(spans: list[Span]) -> list[tuple[str, str]]:
    return [(span.kind, span.extent) for span in spans]


@given(journals)
def test_disassembling_gives_back_every_event_in_file_order(journal: list[dict[str, Any]]) -> None:
    assert as_text(disassemble(assemble(journal))) == as_text(journal)


@given(agent_journal(), st.randoms())
def test_the_order_in_which_spans_are_read_back_does_not_matter(journal: list[dict[str, Any]], random: Any) -> None:
    spans = assemble(journal)
    random.shuffle(spans)
    assert as_text(disassemble(spans)) == as_text(journal)


@given(journals, st.data())
def test_an_assembler_restored_at_any_event_gives_the_spans_of_one_that_never_stopped(
    journal: list[dict[str, Any]], data: st.DataObject
) -> None:
    stops = data.draw(st.sets(st.integers(0, max(0, len(journal) - 1))))
    assembler, spans = Assembler(), []
    for place, line in placed(journal):
        if place.ordinal in stops:
            checkpoint = msgspec.json.decode(msgspec.json.encode(assembler.checkpoint()), type=Checkpoint)
            opened = [event_from_json(journal[mark.ordinal]) for mark in checkpoint.opened]
            assembler = Assembler.restored(checkpoint, opened)
        spans += assembler.feed(event_from_json(line), place)
    spans += assembler.expire(FAR_FUTURE_NS)
    assert spans == assemble(journal)


@given(agent_journal(), st.data())
def test_giving_up_by_the_wall_clock_between_two_events_gives_the_spans_of_a_replay(
    journal: list[dict[str, Any]], data: st.DataObject
) -> None:
    events = [event_from_json(line) for line in journal]
    assembler, spans = Assembler(), []
    for place, _ in placed(journal):
        event = events[place.ordinal]
        if data.draw(st.booleans()):
            # the wall clock that a live shipper sees just before the event is written
            spans += assembler.expire(event.time_ns)
        spans += assembler.feed(event, place)
    spans += assembler.expire(FAR_FUTURE_NS)
    assert spans == assemble(journal)


@given(st.lists(st.sampled_from(["llm.request", "llm.response", "tool.call", "tool.result", "turn.start", "turn.end"])))
def test_every_span_of_a_file_without_ids_has_an_id_of_its_own(types: list[str]) -> None:
    journal = [
        {"timestamp": timestamp(n), "event_type": kind, "session_id": "s", "turn": 1, "data": {}}
        for n, kind in enumerate(types)
    ]
    ids = [span.span_id for span in assemble(journal)]
    assert len(set(ids)) == len(ids)


def line(at_ms: int, event_type: str, turn: int = 0, ms: float | None = None, **data: Any) -> dict[str, Any]:
    return {
        "timestamp": timestamp(at_ms),
        "event_type": event_type,
        "session_id": "s",
        "run_id": "run-a",
        "turn": turn,
        "duration_ms": ms,
        "data": data,
    }


def test_a_turn_of_an_old_file_is_a_trace_of_its_own_with_its_calls_as_children_and_a_link_to_the_session() -> None:
    spans = assemble(
        [
            line(0, "session.start", metadata={"plan": "pro"}, user_id="u"),
            line(1, "turn.start", 1, user_input="hi"),
            line(2, "llm.request", 1, model="m", messages=[]),
            line(5, "llm.response", 1, 3.0, model="m", content="yo"),
            line(6, "turn.end", 1, 5.0, output="yo"),
            line(7, "session.end", 1, 7.0, outcome="solved", total_turns=1),
        ]
    )
    llm, turn, session = spans
    assert (llm.trace_id, llm.parent_id) == (turn.trace_id, turn.span_id)
    assert turn.parent_id == ""
    assert [(link.trace_id, link.span_id) for link in turn.links] == [(session.trace_id, session.span_id)]
    assert session.trace_id != turn.trace_id
    assert (llm.model, llm.response_model, llm.output) == ("m", "", "yo")
    assert {span.user_id for span in spans} == {"u"}
    assert [span.metadata for span in spans] == [{"plan": "pro"}] * 3
    assert (session.output, session.extent) == ("solved", "whole")


def test_ids_of_an_old_file_follow_from_its_content_alone() -> None:
    journal = [line(0, "session.start"), line(1, "turn.start", 1), line(2, "turn.end", 1)]
    assert [span.span_id for span in assemble(journal)] == [span.span_id for span in assemble(journal)]
    other_session = [event | {"session_id": "t"} for event in journal]
    assembler = Assembler()
    others = [span for place, event in placed(other_session) for span in assembler.feed(event_from_json(event), place)]
    assert {span.span_id for span in others}.isdisjoint({span.span_id for span in assemble(journal)})


def test_parallel_calls_without_ids_are_paired_by_the_duration_that_the_answer_gives() -> None:
    spans = assemble(
        [
            line(0, "llm.request", 1, model="m", messages="first"),
            line(100, "llm.request", 1, model="m", messages="second"),
            line(300, "llm.response", 1, 200.0, model="m", content="to second"),
            line(500, "llm.response", 1, 500.0, model="m", content="to first"),
        ]
    )
    assert [(span.input, span.output) for span in spans] == [("second", "to second"), ("first", "to first")]


def test_parallel_tools_without_ids_are_paired_by_name_and_then_in_the_order_of_opening() -> None:
    spans = assemble(
        [
            line(0, "tool.call", 1, tool_name="a", args=1),
            line(1, "tool.call", 1, tool_name="b", args=2),
            line(2, "tool.call", 1, tool_name="a", args=3),
            line(3, "tool.result", 1, tool_name="b", success=True, result="b2"),
            line(4, "tool.result", 1, tool_name="a", success=True, result="a1"),
            line(5, "tool.result", 1, tool_name="a", success=False, result="a3"),
        ]
    )
    assert [(span.name, span.input, span.output, span.status) for span in spans] == [
        ("b", 2, "b2", "ok"),
        ("a", 1, "a1", "ok"),
        ("a", 3, "a3", "error"),
    ]


def test_what_is_open_when_its_run_ends_is_incomplete_and_ends_with_the_run() -> None:
    spans = assemble(
        [
            line(0, "session.start"),
            line(1, "turn.start", 1),
            line(2, "llm.request", 1, model="m"),
            line(9, "session.end", 1, 9.0),
        ]
    )
    assert kinds_of(spans) == [("llm", "incomplete"), ("turn", "incomplete"), ("session", "whole")]
    assert {span.end_ns for span in spans} == {spans[-1].end_ns}


def test_a_closing_event_after_its_span_was_given_up_is_a_late_child_of_that_span() -> None:
    ids = {"trace_id": "1" * 32, "span_id": "2" * 16, "parent_id": "3" * 16}
    spans = assemble(
        [
            line(0, "session.start", orphan_after_s=1),
            line(1, "llm.request", 1, model="m") | ids,
            line(900, "thinking", 1, content="hm"),
            line(1002, "llm.response", 1, 1001.0, model="m", content="at last") | ids,
        ]
    )
    _, given_up, late, session = spans
    assert kinds_of([given_up, late, session]) == [("llm", "incomplete"), ("llm", "late"), ("session", "incomplete")]
    assert (late.parent_id, late.trace_id) == (given_up.span_id, given_up.trace_id)
    assert late.span_id != given_up.span_id
    assert late.output == "at last"


IDS = {"trace_id": "1" * 32, "span_id": "2" * 16, "parent_id": "3" * 16}
OWN_ID = IDS | {"span_id": "4" * 16}


@pytest.mark.parametrize("ids", [({}, {}), (IDS, IDS), (IDS, OWN_ID)], ids=["old file", "same id", "an id of its own"])
def test_an_answer_that_was_logged_twice_is_counted_once(ids: tuple[dict[str, str], dict[str, str]]) -> None:
    answer: dict[str, Any] = {"model": "m", "content": "42", "tokens": {"prompt": 3, "completion": 1}, "cost": 0.5}
    journal = [
        line(0, "session.start"),
        line(1, "llm.request", 1, model="m") | ids[0],
        line(2, "llm.response", 1, 1.0, **answer) | ids[0],
        line(3, "llm.response", 1, **answer) | ids[1],
        line(4, "session.end"),
    ]
    spans = assemble(journal)
    call, again, _ = spans
    assert [(span.kind, span.extent, span.name) for span in (call, again)] == [
        ("llm", "whole", "llm"),
        ("event", "whole", "llm.response"),
    ]
    assert (again.usage, again.cost, again.output) == ({}, None, None)
    assert again.span_id not in (call.span_id, "4" * 16)
    assert (again.trace_id, again.parent_id) == (call.trace_id, call.parent_id)
    assert disassemble(spans) == journal


@pytest.mark.parametrize(
    ("before", "turn", "content"),
    [
        (["llm.request", "llm.response"], 1, "43"),
        (["llm.request", "llm.response"], 2, "42"),
        (["llm.response"], 1, "42"),
    ],
    ids=["another answer", "another turn", "no call was ever answered"],
)
def test_an_answer_of_its_own_that_nobody_asked_for_is_late(before: list[str], turn: int, content: str) -> None:
    earlier = [line(1 + n, kind, 1, model="m", content="42") for n, kind in enumerate(before)]
    *_, late, _ = assemble(
        [line(0, "session.start"), *earlier, line(9, "llm.response", turn, model="m", content=content)]
    )
    assert (late.kind, late.extent, late.output) == ("llm", "late", content)


def test_a_call_that_is_answered_just_in_time_is_whole() -> None:
    spans = assemble(
        [
            line(0, "session.start", orphan_after_s=1),
            line(1, "llm.request", 1, model="m"),
            line(1001, "llm.response", 1, 1000.0, model="m"),
        ]
    )
    assert kinds_of(spans) == [("llm", "whole"), ("session", "incomplete")]


def test_memory_follows_what_is_open_and_not_the_length_of_the_session() -> None:
    assembler = Assembler()
    assembler.feed(event_from_json(line(0, "session.start")), Place(0, 0))
    sizes = set()
    for number in range(1, 400):
        for step, event_type in enumerate(("turn.start", "llm.request", "llm.response", "turn.end")):
            place = Place(number * 10 + step, number * 10 + step)
            assembler.feed(event_from_json(line(number, event_type, number, model="m")), place)
        sizes.add(len(msgspec.json.encode(assembler.checkpoint())))
    assert max(sizes) - min(sizes) < 8
    assert len(assembler.checkpoint().opened) == 1


def test_no_field_of_a_span_holds_an_event_or_its_json() -> None:
    """Each text of an event is found in the span once: in the field that is its home, or in its edge."""
    journal = [
        line(0, "session.start", metadata={"k": "METADATA"}),
        line(1, "turn.start", 1, user_input="INPUT", channel="CHANNEL"),
        line(2, "llm.request", 1, model="MODEL", messages=[{"role": "user", "content": "MESSAGE"}]),
        line(3, "llm.response", 1, 1.0, model="MODEL", content="CONTENT", tokens={"prompt": 1}, note="NOTE"),
        line(4, "tool.call", 1, tool_name="TOOL", args={"q": "ARGUMENT"}, call_id="CALL"),
        line(5, "tool.result", 1, 1.0, tool_name="TOOL", call_id="CALL", success=True, result="RESULT"),
        line(6, "turn.end", 1, 5.0, output="OUTPUT"),
    ]
    by_kind: dict[str, str] = {span.kind: msgspec.json.encode(span).decode() for span in assemble(journal)}
    homes = {
        "llm": ("MODEL", "MESSAGE", "CONTENT", "NOTE"),
        "tool": ("TOOL", "ARGUMENT", "CALL", "RESULT"),
        "turn": ("INPUT", "CHANNEL", "OUTPUT"),
    }
    for kind, texts in homes.items():
        for text in texts:
            assert by_kind[kind].count(text) == 1, f"{text} in {kind}"
    for text in by_kind.values():
        assert "event_type" not in text
        assert "llm.response" not in text


def test_the_fields_of_a_span_and_of_its_edges_are_these() -> None:
    """A field that is added here must be given a home in every adapter and a place in the comparison."""
    assert Span.__struct_fields__ == (
        *("kind", "trace_id", "span_id", "parent_id", "remote_parent", "name", "start_ns", "end_ns", "extent"),
        *("session_id", "run_id", "turn", "user_id", "agent_name", "environment", "release", "tags", "metadata"),
        *("input", "output", "model", "response_model", "provider", "model_parameters", "prompt"),
        *("tool_definitions", "tool_calls", "thinking", "finish_reason", "response_id", "time_to_first_token_ms"),
        *("usage", "cost", "tool_call_id", "status", "error", "links", "opened", "closed", "fingerprint"),
    )
    assert Edge.__struct_fields__ == (
        *("ordinal", "timestamp", "seq", "duration_ms", "ids", "fields", "repeated", "extra", "absent"),
    )


@pytest.fixture(scope="module")
def real_journals(legacy_traces: Path) -> list[list[dict[str, Any]]]:
    return [
        [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
        for file in sorted(legacy_traces.glob("session-*/events.jsonl"))
    ]


def test_real_sessions_come_back_event_for_event(real_journals: list[list[dict[str, Any]]]) -> None:
    counts: dict[str, int] = {}
    for journal in real_journals:
        assembler = Assembler()
        spans = [span for place, event in placed(journal) for span in assembler.feed(event_from_json(event), place)]
        assert assembler.is_idle
        assert as_text(disassemble(spans)) == as_text(journal)
        assert {span.extent for span in spans} == {"whole"}
        for span in spans:
            counts[span.kind] = counts.get(span.kind, 0) + 1
    assert counts == {"session": 100, "turn": 757, "llm": 1229, "tool": 572}
