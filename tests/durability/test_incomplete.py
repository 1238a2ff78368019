"""What is incomplete or late is the same for whoever asks: a live shipper, one that was restarted, and a replay.

A live shipper gives up by the wall clock what the next event would give up, a grace later. That is the same as long as
no event is written more than the grace after its own time: then what a shipper has not read by then is younger.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assembler.journals import START, Written, agent_journal, any_journal, familiar_journal, lived_journal
from tests.assembler.journals import timestamp as timestamp_ms
from tests.delivery.file_backend import FileBackend, stored
from tests.delivery.rig import Rig
from tests.examples import examples
from tracebridge import policy as policies
from tracebridge.assembler import Assembler, Checkpoint, Place, disassemble
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.event import Event, Json, event_from_json
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.session_stream import Cursor, SessionStream
from tracebridge.span import Span

FAR_FUTURE_NS = 2**62
START_NS = int(START.timestamp()) * 1_000_000_000
BROKEN = [b'{"timestamp":"2026-02', b"\n", b"[]\n", b'{"timestamp": 3}\n', b"\xff\n"]


def everything(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    return data


def replayed(journal: list[dict[str, Any]]) -> list[Span]:
    assembler = Assembler()
    spans = [
        span
        for ordinal, line in enumerate(journal)
        for span in assembler.feed(event_from_json(line), Place(ordinal, ordinal))
    ]
    return spans + assembler.expire(FAR_FUTURE_NS)


def restarted(assembler: Assembler, journal: list[dict[str, Any]]) -> Assembler:
    """As the next process takes it up: through what the state keeps."""
    checkpoint = msgspec.msgpack.decode(msgspec.msgpack.encode(assembler.checkpoint()), type=Checkpoint)
    assert checkpoint.deadline_ns == assembler.deadline_ns()
    again = Assembler.restored(checkpoint, [event_from_json(journal[mark.ordinal]) for mark in checkpoint.opened])
    assert again.checkpoint() == checkpoint
    return again


def wall_clock(draw: st.DataObject, earliest_ms: int, latest_ms: int) -> int:
    """A moment between two lines, in nanoseconds; often the last one before the next line is written."""
    at_ms = draw.draw(st.just(latest_ms) | st.just(earliest_ms) | st.integers(earliest_ms, latest_ms))
    return START_NS + at_ms * 1_000_000


@settings(max_examples=examples(40))
@given(lived_journal(), st.data())
def test_a_live_shipper_that_is_restarted_at_any_time_gives_the_spans_of_a_replay_in_the_same_order(
    lived: list[Written], data: st.DataObject
) -> None:
    journal = [written.event for written in lived]
    assembler, spans = Assembler(), []
    for ordinal, written in enumerate(lived):
        spans += assembler.feed(event_from_json(written.event), Place(ordinal, ordinal))
        if data.draw(st.booleans()):
            assembler = restarted(assembler, journal)
        following_ms = lived[ordinal + 1].at_ms if ordinal + 1 < len(lived) else written.at_ms + 10**8
        for at_ns in sorted(wall_clock(data, written.at_ms, following_ms) for _ in range(data.draw(st.integers(0, 2)))):
            spans += assembler.expire(at_ns - INCOMPLETE_GRACE_NS)
        if data.draw(st.booleans()):
            assembler = restarted(assembler, journal)
    spans += assembler.expire(FAR_FUTURE_NS)
    assert spans == replayed(journal)
    assert json.dumps(disassemble(spans), sort_keys=True) == json.dumps(journal, sort_keys=True)


@settings(max_examples=examples(30))
@given(lived=lived_journal(), data=st.data())
def test_a_live_stream_that_is_restarted_at_any_time_gives_the_spans_of_a_replay(
    lived: list[Written], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "lived.jsonl"
    path.write_bytes(b"")
    cursor: Cursor | None = None
    spans: list[Span] = []
    for number, written in enumerate(lived):
        with path.open("ab") as file:
            # what a neighbour has left of a line, whole lines that are no events, and nothing at all
            file.write(data.draw(st.just(b"") | st.sampled_from(BROKEN)))
            file.write(json.dumps(written.event).encode() + b"\n")
        if data.draw(st.booleans()):
            stream = SessionStream(path, everything, cursor)
            spans += [span for step in stream.steps() for span in step.spans]
            following_ms = lived[number + 1].at_ms if number + 1 < len(lived) else written.at_ms + 10**8
            spans += stream.expire(wall_clock(data, written.at_ms, following_ms) - INCOMPLETE_GRACE_NS)
            cursor = msgspec.msgpack.decode(msgspec.msgpack.encode(stream.cursor), type=Cursor)
    spans += read_to_the_end(path, cursor)
    assert spans == read_to_the_end(path, None)


def read_to_the_end(path: Path, cursor: Cursor | None) -> list[Span]:
    stream = SessionStream(path, everything, cursor)
    return [span for step in stream.steps() for span in step.spans] + stream.expire(FAR_FUTURE_NS)


@given(any_journal | agent_journal() | familiar_journal().map(lambda lines: [at_once(line) for line in lines]))
def test_whatever_a_policy_leaves_out_there_are_the_same_spans(journal: list[dict[str, Any]]) -> None:
    narrow = Policy(include_messages=False, include_thinking=False, max_content_length=5)
    shapes = []
    for policy in (Policy(), narrow):
        assembler = Assembler(partial(narrowed, policy))
        spans = [
            span
            for ordinal, line in enumerate(journal)
            for span in assembler.feed(event_from_json(line), Place(ordinal, ordinal))
        ]
        spans += assembler.expire(FAR_FUTURE_NS)
        shapes.append([shape(span) for span in spans])
    assert shapes[0] == shapes[1]


def narrowed(policy: Policy, event: Event) -> Event:
    data = policies.apply(policy, event.event_type, event.data)
    return event.with_data(data)


def shape(span: Span) -> tuple[Any, ...]:
    """What a span is, without its content."""
    ordinals = [edge.ordinal if edge else None for edge in (span.opened, span.closed)]
    links = [(link.trace_id, link.span_id) for link in span.links]
    ids = (span.trace_id, span.span_id, span.parent_id)
    return (span.kind, span.extent, span.start_ns, span.end_ns, *ids, *ordinals, links)


def at_once(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "timestamp": timestamp_ms(0)}


def line(at_ms: int, event_type: str, turn: int = 0, **data: Any) -> dict[str, Any]:
    event = {"timestamp": timestamp_ms(at_ms), "event_type": event_type, "session_id": "s", "run_id": "run-a"}
    return event | {"turn": turn, "duration_ms": None, "data": data}


def test_calls_whose_names_a_policy_cuts_to_the_same_text_are_told_apart(tmp_path: Path) -> None:
    journal = [
        line(0, "tool.call", 1, tool_name="t", call_id="call-1", args=1),
        line(1, "tool.call", 1, tool_name="t", call_id="call-2", args=2),
        line(2, "tool.result", 1, tool_name="t", call_id="call-2", success=True, result=2),
        line(3, "tool.result", 1, tool_name="t", call_id="call-1", success=True, result=1),
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in journal))
    whole = SessionStream(path, partial(policies.apply, Policy(max_content_length=4)))
    restarts: list[Span] = []
    cursor: Cursor | None = None
    for _ in journal:
        stream = SessionStream(path, partial(policies.apply, Policy(max_content_length=4)), cursor)
        restarts += next(stream.steps()).spans
        cursor = stream.cursor
    for spans in ([span for step in whole.steps() for span in step.spans], restarts):
        assert [(span.input, span.output, span.tool_call_id) for span in spans] == [
            (2, 2, "call…[cut 2]"),
            (1, 1, "call…[cut 2]"),
        ]


@pytest.mark.parametrize("year", [1, 1969, 2262, 2554, 9999])
@pytest.mark.parametrize("endless", [10**400, 1e300])
def test_a_time_that_no_backend_can_hold_is_no_trouble_to_the_state(year: int, endless: float) -> None:
    journal = [
        line(0, "session.start", orphan_after_s=endless),
        line(0, "turn.start", 1) | {"timestamp": f"{year:04}-12-31T23:59:59Z", "duration_ms": endless},
        line(0, "llm.request", 1, model="m") | {"duration_ms": endless},
        line(0, "llm.response", 1, model="m") | {"duration_ms": 1e305},
    ]
    assembler = Assembler()
    spans = []
    for ordinal, event in enumerate(journal):
        spans += assembler.feed(event_from_json(event), Place(ordinal, ordinal))
        assembler = restarted(assembler, journal)
    assert [span.extent for span in spans] == ["whole"]
    assert assembler.expire(FAR_FUTURE_NS) == []


def test_an_end_that_is_written_later_than_the_grace_is_late_only_to_who_looked_before() -> None:
    """The limit of what can be promised: the shipper knew no better, and the journal alone decides for all others."""
    journal = [line(0, "session.start", orphan_after_s=1), line(900, "session.end")]
    assembler = Assembler()
    assembler.feed(event_from_json(journal[0]), Place(0, 0))
    (given_up,) = assembler.expire(START_NS + 61_001 * 1_000_000 - INCOMPLETE_GRACE_NS)
    (late,) = assembler.feed(event_from_json(journal[1]), Place(1, 1))
    assert (given_up.extent, late.extent) == ("incomplete", "late")
    assert [span.extent for span in replayed(journal)] == ["whole"]
    assert disassemble([given_up, late]) == journal  # and nothing of it is lost


@settings(max_examples=examples(12))
@given(journals=st.lists(agent_journal() | familiar_journal(), min_size=1, max_size=3), data=st.data())
def test_shippers_that_take_turns_bring_a_backend_what_a_replay_expects(
    journals: list[list[dict[str, Any]]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rig = Rig(tmp_path_factory.mktemp("turns"), FileBackend())
    rig.trace_dir.mkdir()
    began = datetime.now(UTC)
    # what the first shipper finds is old, and given up by the clock; what comes later is new
    ages_s = [data.draw(st.sampled_from([9000, 4000, 1000])), 200, 0]
    for round_, age_s in enumerate(ages_s):
        for number, journal in enumerate(journals):
            share = len(journal) // len(ages_s) + 1
            folder = layout.session_folder(rig.trace_dir, f"s{number}")
            folder.mkdir(exist_ok=True)
            with layout.events_file(folder).open("a") as file:
                for place, event in enumerate(journal[round_ * share : (round_ + 1) * share]):
                    at = began - timedelta(seconds=age_s) + timedelta(milliseconds=place)
                    patient = {"orphan_after_s": 300} if event["event_type"] == "session.start" else {}
                    changes = {"timestamp": at.isoformat(), "data": event["data"] | patient}
                    file.write(json.dumps({**event, "session_id": f"s{number}", **changes}) + "\n")
        rig.ship()
    expected = []
    for folder in layout.session_folders(rig.trace_dir):
        stream = SessionStream(layout.events_file(folder), everything)
        expected += [span for step in stream.steps() for span in step.spans]
        expected += stream.expire(int(datetime.now(UTC).timestamp() * 1e9) - INCOMPLETE_GRACE_NS)
    delivered = [msgspec.structs.replace(span, fingerprint="") for span in stored(rig.file)]
    assert sorted(map(msgspec.json.encode, delivered)) == sorted(map(msgspec.json.encode, expected))
