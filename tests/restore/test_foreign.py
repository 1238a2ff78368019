"""Other people's spans become the best journal that can be told of them, and nothing of them is invented."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.langfuse.scripted import scripted
from tests.restore.sending import Shelf, restored_lines, spans_of
from tests.workplace import Workplace, answer_of, langfuse, otel
from tracebridge.assembler import Assembler, Place, disassemble
from tracebridge.devserver import DevServer
from tracebridge.event import event_from_json
from tracebridge.journal import layout
from tracebridge.restore.foreign import adopt
from tracebridge.span import Link, Span, SpanError
from tracebridge.testing.strategies import spans

SECOND = 1_000_000_000
START_NS = 1_770_415_800 * SECOND
TRACE = "0af7651916cd43dd8448eb211c80319c"


def foreign(kind: Any, number: int, parent: int = 0, at: float = 0.0, took: float = 1.0, **fields: Any) -> Span:
    start_ns = START_NS + int(at * SECOND)
    given = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": f"{parent:016x}" if parent else "",
        "name": kind,
        "start_ns": start_ns,
        "end_ns": start_ns + int(took * SECOND),
        "session_id": "chat",
    }
    return Span(kind=kind, **given | fields)


def one_turn() -> list[Span]:
    """A request as the SDK of a backend sends it: a root, an LLM call, a tool call with a lookup in it."""
    asked: dict[str, Any] = {"input": "Where is it?", "output": "On its way", "user_id": "ada", "tags": ("x",)}
    call: dict[str, Any] = {
        "input": [{"role": "user", "content": "Where is it?"}],
        "output": "Let me look",
        "model": "gpt-4o",
    }
    usage = {"input": 10, "output": 5}
    error = SpanError(message="no such order")
    return [
        foreign("event", 1, took=5, name="handle", **asked),
        foreign("llm", 2, 1, 1, 1.5, name="ask", usage=usage, metadata={"k": 1}, **call),
        foreign("tool", 3, 1, 3, 0.5, name="find_order", input={"id": 7}, error=error),
        foreign("event", 4, 3, 3.1, 0.2, name="lookup", output=[1]),
    ]


def lines_of(some: list[Span]) -> list[dict[str, Any]]:
    return disassemble(adopt("chat", some).spans)


def test_a_root_is_a_turn_and_calls_are_calls() -> None:
    lines = lines_of(one_turn())
    assert [(line["event_type"], line["turn"]) for line in lines] == [
        ("session.start", 0),
        ("turn.start", 1),
        ("llm.request", 1),
        ("llm.response", 1),
        ("tool.call", 1),
        ("span", 1),
        ("tool.result", 1),
        ("turn.end", 1),
        ("session.end", 0),
    ]
    by_type = {line["event_type"]: line for line in lines}
    assert by_type["session.start"]["data"] == {"user_id": "ada", "tags": ["x"]}
    assert by_type["turn.start"]["data"] == {"user_input": "Where is it?", "name": "handle"}
    assert by_type["turn.end"]["data"] == {"output": "On its way"}
    assert by_type["turn.end"]["duration_ms"] == 5000.0
    assert by_type["llm.request"]["timestamp"] == "2026-02-06T22:10:01.000Z"
    assert by_type["llm.request"]["data"]["metadata"] == {"k": 1}
    response = by_type["llm.response"]["data"]
    assert (response["model"], response["content"]) == ("gpt-4o", "Let me look")
    assert response["tokens"] == {"prompt": 10, "completion": 5, "input": 10, "output": 5}
    result = by_type["tool.result"]["data"]
    assert result == {"tool_name": "find_order", "success": False, "error": "no such order"}
    assert by_type["span"]["data"] == {"name": "lookup", "output": [1]}


def test_spans_keep_their_ids_and_parents_when_they_are_sent_on(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(one_turn())
    told = shelf.restore(tmp_path / "new")
    (session,) = told.sessions
    assert (session.origin, session.spans) == ("other", {"event": 2, "llm": 1, "tool": 1})
    assert {gap.name: gap.count for gap in session.shortfalls} == {"kind": 1}
    again = {span.span_id: span for span in spans_of(tmp_path / "new" / "session-chat" / "events.jsonl")}
    for span in one_turn():
        sent_on = again[span.span_id]
        assert (sent_on.trace_id, sent_on.parent_id) == (span.trace_id, span.parent_id)
        assert (sent_on.start_ns, sent_on.end_ns) == (span.start_ns, span.end_ns)
        assert sent_on.extent == "whole"
    assert len(again) == 1 + len(one_turn())


def test_a_root_call_stands_alone_and_no_turn_is_made_up_for_it() -> None:
    lines = lines_of([foreign("llm", 1, model="m"), foreign("llm", 2, at=9, model="m", trace_id="1" * 32)])
    assert [(line["event_type"], line["turn"]) for line in lines][1:-1] == [
        ("llm.request", 1),
        ("llm.response", 1),
        ("llm.request", 2),
        ("llm.response", 2),
    ]


def test_an_agent_inside_of_an_agent_is_a_turn_inside_of_a_turn() -> None:
    lines = lines_of([foreign("turn", 1, took=9), foreign("tool", 2, 1, 1, 5), foreign("turn", 3, 2, 2, 2)])
    turns = [(line["turn"], line.get("parent_id", "")) for line in lines if line["event_type"] == "turn.start"]
    assert turns == [(1, ""), (2, f"{2:016x}")]


def test_what_no_event_has_a_place_for_stands_in_its_data() -> None:
    link = Link(trace_id="2" * 32, span_id="3" * 16)
    turn = foreign("turn", 1, model="gpt", cost={"total": 0.5}, links=(link,), environment="prod")
    other = foreign("tool", 2, 1, environment="dev", model="m")
    by_type = {line["event_type"]: line["data"] for line in lines_of([turn, other])}
    assert by_type["session.start"] == {"environment": "prod"}
    assert by_type["turn.start"] == {"links": [{"trace_id": "2" * 32, "span_id": "3" * 16}]}
    assert by_type["turn.end"] == {"model": "gpt", "cost": {"total": 0.5}}
    assert by_type["tool.call"] == {"tool_name": "tool", "environment": "dev"}
    assert by_type["tool.result"] == {"tool_name": "tool", "success": True, "model": "m"}


def test_ids_that_are_no_w3c_ids_are_replaced_the_same_way_each_time_and_counted() -> None:
    some = [
        foreign("turn", 1, span_id="an-uuid", trace_id="Trace 1"),
        foreign("tool", 2, parent_id="an-uuid", trace_id="Trace 1"),
        foreign("tool", 2, trace_id="4" * 32),
    ]
    first, second = adopt("chat", some), adopt("chat", list(reversed(some)))
    assert disassemble(first.spans) == disassemble(second.spans)
    assert first.shortfalls["ids"] == 2
    ids = [(span.trace_id, span.span_id) for span in first.spans]
    assert len({span_id for _, span_id in ids}) == 4
    (turn,) = [span for span in first.spans if span.kind == "turn"]
    (tool,) = [span for span in first.spans if span.kind == "tool" and span.trace_id != "4" * 32]
    assert (tool.trace_id, tool.parent_id) == (turn.trace_id, turn.span_id)


def test_a_parent_that_is_not_there_is_counted_and_kept() -> None:
    found = adopt("chat", [foreign("turn", 1, 99), foreign("tool", 2, 1)])
    assert found.shortfalls == {"parent": 1}
    assert found.spans[1].parent_id == f"{99:016x}"
    assert found.spans[1].remote_parent


def test_a_session_that_somebody_came_back_to_the_next_day_is_one_run(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put([foreign("turn", 1), foreign("turn", 2, at=86_400, trace_id="5" * 32)])
    shelf.restore(tmp_path / "new")
    again = spans_of(tmp_path / "new" / "session-chat" / "events.jsonl")
    assert Counter(f"{span.kind} {span.extent}" for span in again) == {"turn whole": 2, "session whole": 1}


@st.composite
def forests(draw: st.DrawFn) -> list[Span]:
    """Spans of others in a few traces, whose parents may be missing, or one another's."""
    some = draw(st.lists(spans(), min_size=1, max_size=8))
    ids = st.sampled_from([f"{number:016x}" for number in range(1, 8)] + ["x", ""])
    made = []
    for number, span in enumerate(some, 1):
        made.append(
            msgspec.structs.replace(
                span,
                trace_id=draw(st.sampled_from(["1" * 32, "2" * 32, "no W3C id"])),
                span_id=draw(st.sampled_from([f"{number:016x}", f"x{number}"])),
                parent_id=draw(ids),
                opened=None,
                closed=None,
                fingerprint="",
                session_id="s",
            )
        )
    return list({(span.trace_id, span.span_id): span for span in made}.values())


@given(some=forests())
def test_whatever_others_send_becomes_events_that_give_each_span_once(some: list[Span]) -> None:
    found = adopt("s", some)
    lines = disassemble(found.spans)
    for line in lines:
        event_from_json(line)
    assert lines[0]["event_type"] == "session.start"
    assert lines[-1]["event_type"] == "session.end"
    assert len({line["span_id"] for line in lines}) == len(some) + 1
    times = [event_from_json(line).time_ns for line in lines]
    assert times == sorted(times)


@given(some=forests())
def test_the_events_give_one_whole_span_for_each(some: list[Span]) -> None:
    assembler = Assembler()
    made: list[Span] = []
    for ordinal, line in enumerate(disassemble(adopt("s", some).spans)):
        made += assembler.feed(event_from_json(line), Place(0, ordinal))
    assert assembler.is_idle
    assert len(made) == len(some) + 1
    assert {span.extent for span in made} == {"whole"}


def test_spans_of_a_session_that_name_it_on_the_root_alone_are_restored_with_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    turn = one_turn()
    bare = [msgspec.structs.replace(span, session_id="") for span in turn[1:]]
    shelf.put([turn[0], *bare])
    selections: tuple[dict[str, Any], ...] = ({}, {"session_ids": ("chat",)})
    for selection in selections:
        out = tmp_path / f"new-{len(selection)}"
        (session,) = shelf.restore(out, **selection).sessions
        assert (session.session_id, sum(session.spans.values())) == ("chat", 4)


def test_a_session_that_is_named_on_the_root_alone_is_restored_whole_by_a_window_through_its_trace(
    tmp_path: Path,
) -> None:
    shelf = Shelf(tmp_path)
    turn = one_turn()
    shelf.put([turn[0], *(msgspec.structs.replace(span, session_id="") for span in turn[1:])])
    edge_ns = turn[1].start_ns
    windows: dict[str, dict[str, Any]] = {"until": {"end_ns": edge_ns}, "since": {"start_ns": edge_ns}}
    for name, window in windows.items():
        (session,) = shelf.restore(tmp_path / name, **window).sessions
        assert (session.session_id, sum(session.spans.values())) == ("chat", 4)


def test_of_two_sessions_in_one_trace_one_gets_the_spans_that_name_none(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    named = [foreign("llm", number, session_id=name) for number, name in ((1, "b"), (2, "a"), (3, "b"))]
    shelf.put([*named, foreign("tool", 4, 1, session_id="")])
    told = shelf.restore(tmp_path / "new")
    spans = {session.session_id: session.spans for session in told.sessions}
    assert spans == {"a": {"llm": 1, "tool": 1}, "b": {"llm": 2}}


def test_a_trace_without_a_session_is_a_session_of_its_own(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put([msgspec.structs.replace(span, session_id="") for span in one_turn()])
    selections: tuple[dict[str, Any], ...] = ({}, {"session_ids": (TRACE,)})
    for selection in selections:
        out = tmp_path / f"new-{len(selection)}"
        (session,) = shelf.restore(out, **selection).sessions
        assert (session.session_id, sum(session.spans.values())) == (TRACE, 4)
        assert restored_lines(out, TRACE)[0]["session_id"] == TRACE


def otlp_span(number: int, parent: int, name: str, **attributes: str) -> dict[str, Any]:
    """A span as another service sends it, in OTLP's JSON."""
    start_ns = START_NS + number * SECOND
    span: dict[str, Any] = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + SECOND),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }
    return span | ({"parentSpanId": f"{parent:016x}"} if parent else {})


def test_what_another_service_has_sent_to_jaeger_is_restored(tmp_path: Path, devserver: DevServer) -> None:
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    sent = [otlp_span(1, 0, "POST /ask"), otlp_span(2, 1, "chat gpt-4o", **chat), otlp_span(3, 1, "search", **tool)]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": sent}]}]}
    httpx.post(f"{devserver.url}/v1/traces", json=body).raise_for_status()
    workplace = Workplace(tmp_path / "here", {"otel": otel(devserver)})
    ran = workplace.call("restore", "--from", "otel", "--out", tmp_path / "new")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = restored_lines(tmp_path / "new", TRACE)
    assert Counter(line["event_type"].partition(".")[0] for line in lines) == {
        "session": 2,
        "turn": 2,
        "llm": 2,
        "tool": 2,
    }
    data = {line["event_type"]: line["data"] for line in lines}
    assert data["turn.start"] == {"name": "POST /ask"}
    assert data["llm.request"]["model"] == "gpt-4o"
    assert data["tool.call"]["tool_name"] == "search"


@pytest.fixture
def sdk_rows(shared: Path) -> dict[str, Any]:
    """What a real LangFuse answers of a trace that its own SDK has sent."""
    (path,) = (shared / "recorded").glob("009-*-sdk.json")
    body: dict[str, Any] = json.loads(path.read_text())["response"]["body"]
    return body


def test_what_the_sdk_of_langfuse_has_sent_is_restored_and_can_be_sent_on(
    sdk_rows: dict[str, Any], tmp_path: Path, devserver: DevServer
) -> None:
    with scripted(lambda path, _: (200, sdk_rows)) as url:
        source = {"type": "langfuse", "host": url, "public_key": "pk", "secret_key": "sk", "enabled": False}
        workplace = Workplace(tmp_path / "here", {"source": source, "langfuse": langfuse(devserver)})
        out = tmp_path / "new"
        ran = workplace.call("restore", "--from", "source", "--out", out)
        assert (ran.returncode, ran.stderr) == (0, "")
    lines = restored_lines(out, "sdk-session")
    assert Counter(line["event_type"] for line in lines) == dict.fromkeys(
        (
            *("session.start", "session.end", "turn.start", "turn.end"),
            *("llm.request", "llm.response", "tool.call", "tool.result"),
        ),
        1,
    )
    data = {line["event_type"]: line["data"] for line in lines}
    assert data["session.start"]["user_id"] == "sdk-user"
    assert data["turn.start"]["user_input"] == {"q": "hello", "n": 1}
    assert data["tool.result"]["error"] == "boom"
    metadata = json.loads(layout.metadata_file(out / "session-sdk-session").read_text())
    assert metadata["session_id"] == "sdk-session"

    assert answer_of(workplace.call("backfill", out, "--json"))["sinks"][0]["spans"] == 4
    assert workplace.call("validate").returncode == 0
    sent_on = {span.span_id for span in workplace.observed("langfuse")}
    assert sent_on > {row["id"] for row in sdk_rows["data"]}


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_the_recipes_work_on_what_others_have_sent(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(one_turn())
    shelf.restore(tmp_path / "traces")
    every = "find traces -name events.jsonl -exec cat {} \\; | "
    tokens = (
        'jq \'select(.event_type=="llm.response" and .data.tokens) | '
        "{model: .data.model, tokens: (.data.tokens.prompt + .data.tokens.completion)}' | jq -sc ."
    )
    failures = "jq 'select(.event_type==\"tool.result\")' | jq -sc 'map(.data.success)'"
    for recipe, answer in ((tokens, [{"model": "gpt-4o", "tokens": 15}]), (failures, [False])):
        ran = subprocess.run(["bash", "-c", every + recipe], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(ran.stdout) == answer
