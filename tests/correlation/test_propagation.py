"""With `propagate: true` a turn continues the agent's active trace, and is the active span for what happens inside."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tracebridge import Session
from tracebridge.assembler import disassemble
from tracebridge.recording.propagation import GuardedPropagation
from tracebridge.recording.tracer import Tracer
from tracebridge.session_stream import SessionStream

UPSTREAM = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_WANTED = UPSTREAM[:-1] + "0"


class Host:
    """The agent's own telemetry: a provider that is not the global one, and what it has finished."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("host")

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return found

    def parent(self, name: str) -> str:
        parent = self.span(name).parent
        return "" if parent is None else trace.format_span_id(parent.span_id)

    def trace_id(self, name: str) -> str:
        found = self.span(name).context
        assert found is not None
        return trace.format_trace_id(found.trace_id)

    def span_id(self, name: str) -> str:
        found = self.span(name).context
        assert found is not None
        return trace.format_span_id(found.span_id)

    def work(self, name: str) -> None:
        """What an instrumented library does."""
        self.tracer.start_span(name).end()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    def no_trouble(error: BaseException) -> None:
        raise error

    yield Tracer({"agent_trace": {"trace_dir": str(tmp_path), "propagate": True}}, on_error=no_trouble)
    assert trace.get_current_span(context.get_current()).get_span_context().is_valid is False, "nothing is left active"


@pytest.fixture(autouse=True)
def no_complaint_of_opentelemetry(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def events(tracer: Tracer, event_type: str = "") -> list[dict[str, Any]]:
    files = sorted(tracer.settings.trace_dir.glob("session-*/events.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if event_type in ("", line["event_type"])]


def one(tracer: Tracer, event_type: str) -> dict[str, Any]:
    (found,) = events(tracer, event_type)
    return found


def test_inside_a_turn_and_its_calls_each_is_the_parent_of_what_the_agents_libraries_do(
    tracer: Tracer, host: Host
) -> None:
    with tracer.trace_session("s") as session:
        host.work("before")
        with tracer.trace_turn(session):
            host.work("in the turn")
            with session.llm_call(model="m") as call:
                host.work("in the call of the model")
                call.finish("answer")
            with session.tool_call("search"):
                host.work("in the tool")
            host.work("in the turn again")
        host.work("after")
    turn = one(tracer, "turn.start")
    for name, parent in {
        "before": "",
        "in the turn": turn["span_id"],
        "in the call of the model": one(tracer, "llm.request")["span_id"],
        "in the tool": one(tracer, "tool.call")["span_id"],
        "in the turn again": turn["span_id"],
        "after": "",
    }.items():
        assert host.parent(name) == parent, name
        assert (host.trace_id(name) == turn["trace_id"]) is bool(parent), name


def test_a_turn_inside_a_request_of_the_agents_own_telemetry_continues_its_trace(tracer: Tracer, host: Host) -> None:
    with host.tracer.start_as_current_span("request"), tracer.trace_session("s") as session:
        with tracer.trace_turn(session), session.tool_call("search"):
            host.work("query")
        host.work("response")
    turn, tool = one(tracer, "turn.start"), one(tracer, "tool.call")
    assert (turn["trace_id"], turn["parent_id"]) == (host.trace_id("request"), host.span_id("request"))
    assert turn["data"]["remote_parent"] is True
    assert tool["trace_id"] == turn["trace_id"]
    assert host.parent("query") == tool["span_id"]
    assert host.parent("response") == host.span_id("request"), "what was active before is active again"
    assert one(tracer, "session.start")["trace_id"] != turn["trace_id"], "a conversation outlives a request"


def test_without_propagate_the_agents_telemetry_is_neither_read_nor_touched(tmp_path: Path, host: Host) -> None:
    tracer = Tracer({"agent_trace": {"trace_dir": str(tmp_path)}})
    with host.tracer.start_as_current_span("request"), tracer.trace_session("s") as session:
        here = context.get_current()
        with tracer.trace_turn(session):
            assert context.get_current() is here
    turn = one(tracer, "turn.start")
    assert "parent_id" not in turn
    assert "remote_parent" not in turn["data"]
    assert turn["trace_id"] != host.trace_id("request")


@pytest.mark.parametrize("propagate", [True, False])
def test_a_turn_may_be_told_the_headers_of_its_request(tmp_path: Path, propagate: bool) -> None:
    tracer = Tracer({"agent_trace": {"trace_dir": str(tmp_path), "propagate": propagate}})
    with tracer.trace_session("s") as session:
        with tracer.trace_turn(session, "hi", traceparent=UPSTREAM, tracestate="vendor=1"):
            headers = {"traceparent": "another"}
            session.inject(headers)
        with tracer.trace_turn(session, traceparent="nonsense"):
            pass
    turn, other = events(tracer, "turn.start")
    assert (turn["trace_id"], turn["parent_id"]) == tuple(UPSTREAM.split("-")[1:3])
    assert turn["data"] == {"user_input": "hi", "remote_parent": True, "tracestate": "vendor=1"}
    assert headers == {"traceparent": f"00-{turn['trace_id']}-{turn['span_id']}-01", "tracestate": "vendor=1"}
    assert "parent_id" not in other, "what is no header begins a trace anew"


@pytest.mark.parametrize("is_active", [True, False], ids=["active span", "header"])
@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_what_is_said_of_the_id_of_a_continued_trace_is_said_to_other_services_as_well(
    tracer: Tracer, flags: str, is_active: bool
) -> None:
    came = UPSTREAM[:-2] + flags
    token = context.attach(extract({"traceparent": came}) if is_active else context.get_current())
    by_session: dict[str, str] = {}
    by_opentelemetry: dict[str, str] = {}
    with (
        tracer.trace_session("s") as session,
        tracer.trace_turn(session, traceparent=None if is_active else came),
        session.tool_call("t"),
        tracer.trace_turn(session, "the sub-agent's"),
        session.llm_call("m"),
    ):
        session.inject(by_session)
        inject(by_opentelemetry)
    context.detach(token)
    assert [sent["traceparent"][-2:] for sent in (by_session, by_opentelemetry)] == [flags] * 2


def test_of_a_trace_that_begins_here_only_the_flag_is_sent_that_every_version_of_the_standard_knows(
    tracer: Tracer,
) -> None:
    sent: list[dict[str, str]] = [{}, {}, {}]
    with tracer.trace_session("s") as session:
        session.inject(sent[0])
        with tracer.trace_turn(session), session.tool_call("t"):
            session.inject(sent[1])
            inject(sent[2])
    assert [headers["traceparent"][-2:] for headers in sent] == ["01"] * 3


def test_headers_name_the_innermost_span_also_of_a_tool_call_that_was_only_logged(tracer: Tracer) -> None:
    def told(session: Session) -> str:
        headers: dict[str, str] = {}
        session.inject(headers)
        return headers["traceparent"].split("-")[2]

    with tracer.trace_session("s") as session:
        of_session = told(session)
        with tracer.trace_turn(session):
            of_turn = told(session)
            with session.tool_call("a"):
                of_call = told(session)
            session.log_tool_call("b", call_id="1")
            of_logged = told(session)
            session.log_tool_call("c", call_id="2")
            assert told(session) == of_turn, "of two that are open nobody knows which one asks"
    assert of_session == one(tracer, "session.start")["span_id"]
    assert of_turn == one(tracer, "turn.start")["span_id"]
    assert [of_call, of_logged] == [call["span_id"] for call in events(tracer, "tool.call")[:2]]


def test_a_session_that_is_not_recorded_leaves_headers_and_context_alone(tmp_path: Path, host: Host) -> None:
    tracer = Tracer({"agent_trace": {"trace_dir": str(tmp_path), "sample_rate": 0, "propagate": True}})
    headers: dict[str, str] = {}
    with (
        host.tracer.start_as_current_span("request"),
        tracer.trace_session("s") as session,
        tracer.trace_turn(session),
        session.tool_call("t"),
    ):
        session.inject(headers)
        host.work("query")
    assert headers == {}
    assert host.parent("query") == host.span_id("request")


def test_a_trace_that_nobody_upstream_wants_is_recorded_with_that_mark_and_passed_on_with_it(tracer: Tracer) -> None:
    sent: dict[str, str] = {}
    with tracer.trace_session("s") as session:
        with (
            tracer.trace_turn(session, traceparent=NOT_WANTED),
            session.tool_call("t"),
            tracer.trace_turn(session, "the sub-agent's"),
        ):
            inject(sent)
            session.log_thinking("hm")
        with tracer.trace_turn(session):
            pass
    flags = [(event["event_type"], event.get("trace_flags")) for event in events(tracer)]
    assert flags == [
        ("session.start", None),
        *((kind, "00") for kind in ("turn.start", "tool.call", "turn.start", "thinking", "turn.end", "tool.result")),
        *(("turn.end", "00"), ("turn.start", None), ("turn.end", None), ("session.end", None)),
    ]
    assert sent["traceparent"].endswith("-00")


def test_the_sampling_of_the_agents_own_provider_is_passed_on(tracer: Tracer) -> None:
    host = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("host")
    with (
        host.start_as_current_span("request"),
        tracer.trace_session("s") as session,
        tracer.trace_turn(session),
    ):
        assert trace.get_current_span().get_span_context().trace_flags.sampled is False
    assert one(tracer, "turn.start")["trace_flags"] == "00"


def test_baggage_of_the_agent_stays_its_own_and_none_is_added(tracer: Tracer) -> None:
    token = context.attach(baggage.set_baggage("tenant", "a"))
    sent: dict[str, str] = {}
    own: dict[str, str] = {}
    with tracer.trace_session("secret-session", user_id="ada") as session, tracer.trace_turn(session):
        inject(sent)
        session.inject(own)
    context.detach(token)
    assert sent["baggage"] == "tenant=a"
    assert set(own) == {"traceparent"}


def test_each_asyncio_task_has_the_span_that_it_was_started_in(tracer: Tracer, host: Host) -> None:
    async def tool(session: Session, name: str, ready: asyncio.Barrier) -> None:
        async with session.tool_call(name):
            await ready.wait()
            host.work(f"in {name}")
            await ready.wait()
        host.work(f"after {name}")

    async def agent() -> None:
        ready = asyncio.Barrier(3)
        async with tracer.trace_session("s") as session, tracer.trace_turn(session):
            await asyncio.gather(*(tool(session, name, ready) for name in "abc"))
            host.work("in the turn")

    asyncio.run(agent())
    turn = one(tracer, "turn.start")["span_id"]
    for call in events(tracer, "tool.call"):
        assert host.parent(f"in {call['data']['tool_name']}") == call["span_id"]
        assert host.parent(f"after {call['data']['tool_name']}") == turn
    assert host.parent("in the turn") == turn


def test_a_thread_sees_the_turn_only_if_it_is_given_the_context(tracer: Tracer, host: Host) -> None:
    with tracer.trace_session("s") as session, tracer.trace_turn(session):
        here = copy_context()
        threads = [
            threading.Thread(target=here.run, args=(host.work, "with")),
            threading.Thread(target=host.work, args=("without",)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert host.parent("with") == one(tracer, "turn.start")["span_id"]
    assert host.parent("without") == ""


def test_a_generator_that_is_closed_in_another_task_leaves_that_task_alone(tracer: Tracer, host: Host) -> None:
    async def answers(session: Session) -> AsyncIterator[int]:
        async with tracer.trace_turn(session), session.llm_call(model="m"):
            yield 1

    async def agent() -> None:
        async with tracer.trace_session("s") as session:
            stream = answers(session)

            async def begin() -> None:
                await anext(stream)

            async def end() -> None:
                with host.tracer.start_as_current_span("of the other task"):
                    await stream.aclose()  # type: ignore[attr-defined]
                    host.work("after closing")

            await asyncio.create_task(begin())
            await asyncio.create_task(end())
            host.work("afterwards")

    asyncio.run(agent())
    assert host.parent("after closing") == host.span_id("of the other task")
    assert host.parent("afterwards") == ""
    assert len(events(tracer, "turn.end")) == 1


def test_blocks_that_are_left_out_of_order_leave_nothing_active(tracer: Tracer, host: Host) -> None:
    with host.tracer.start_as_current_span("request"), tracer.trace_session("s") as session:
        with tracer.trace_turn(session):
            outer, inner = session.tool_call("outer"), session.tool_call("inner")
            outer.__enter__()
            inner.__enter__()
            outer.__exit__(None, None, None)
            host.work("in the inner one")
            inner.__exit__(None, None, None)
            host.work("in the turn")
        host.work("in the request")
    calls = {call["data"]["tool_name"]: call["span_id"] for call in events(tracer, "tool.call")}
    assert host.parent("in the inner one") == calls["inner"]
    assert host.parent("in the turn") == one(tracer, "turn.start")["span_id"]
    assert host.parent("in the request") == host.span_id("request")


def test_a_task_that_outlives_its_turn_begins_a_trace_anew(tracer: Tracer) -> None:
    async def agent() -> None:
        async with tracer.trace_session("s") as session:
            over = asyncio.Event()

            async def later() -> None:
                await over.wait()
                async with tracer.trace_turn(session):
                    pass

            async with tracer.trace_turn(session):
                task = asyncio.create_task(later())
            over.set()
            await task

    asyncio.run(agent())
    first, second = events(tracer, "turn.start")
    assert first["trace_id"] != second["trace_id"]
    assert "parent_id" not in second


def test_a_sub_agent_with_a_session_of_its_own_continues_the_trace_of_the_tool_that_it_works_for(
    tracer: Tracer, host: Host
) -> None:
    with (
        tracer.trace_session("main") as session,
        tracer.trace_turn(session),
        session.tool_call("delegate"),
        tracer.trace_session("sub") as sub,
        tracer.trace_turn(sub),
        sub.tool_call("search"),
        tracer.trace_session("sub-sub") as lowest,
        tracer.trace_turn(lowest),
    ):
        host.work("query")
    by_id = {event["span_id"]: event for event in events(tracer) if event["event_type"].endswith((".start", ".call"))}
    chain, current = [], by_id[host.parent("query")]
    while True:
        chain.append((current["session_id"], current["event_type"]))
        if "parent_id" not in current:
            break
        current = by_id[current["parent_id"]]
    assert chain == [
        ("sub-sub", "turn.start"),
        *(("sub", "tool.call"), ("sub", "turn.start"), ("main", "tool.call"), ("main", "turn.start")),
    ]
    assert len({event["trace_id"] for event in by_id.values() if event["event_type"] != "session.start"}) == 1


def test_one_trace_a_session_gives_way_to_the_trace_of_a_request(tmp_path: Path) -> None:
    settings = {"trace_dir": str(tmp_path), "trace_scope": "session", "propagate": True}
    tracer = Tracer({"agent_trace": settings})
    with tracer.trace_session("s") as session:
        with tracer.trace_turn(session):
            pass
        with tracer.trace_turn(session, traceparent=UPSTREAM):
            pass
    start = one(tracer, "session.start")
    inside, continued = events(tracer, "turn.start")
    assert (inside["trace_id"], inside["parent_id"]) == (start["trace_id"], start["span_id"])
    assert continued["trace_id"] == UPSTREAM.split("-")[1]


def test_what_was_recorded_of_a_continued_trace_is_told_by_its_spans(tracer: Tracer) -> None:
    with (
        tracer.trace_session("s") as session,
        tracer.trace_turn(session, "hi", traceparent=NOT_WANTED, tracestate="a=1"),
        session.tool_call("t"),
    ):
        pass
    (path,) = tracer.settings.trace_dir.glob("session-*/events.jsonl")
    spans = [span for step in SessionStream(path, lambda _, data: data).steps() for span in step.spans]
    assert disassemble(spans) == events(tracer)
    (turn,) = [span for span in spans if span.kind == "turn"]
    assert (turn.remote_parent, turn.parent_id) == (True, UPSTREAM.split("-")[2])


class Broken:
    """A plug-in with a defect in each of its methods."""

    def active(self) -> None:
        raise RuntimeError("active")

    def enter(self, _: object) -> None:
        raise RuntimeError("enter")

    def leave(self, _: object) -> None:
        raise RuntimeError("leave")


def test_a_defective_plug_in_costs_the_agent_nothing_but_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "tracebridge.recording.tracer.propagation", lambda trouble: GuardedPropagation(Broken(), trouble)
    )
    tracer = Tracer({"agent_trace": {"trace_dir": str(tmp_path), "propagate": True}})
    with caplog.at_level(logging.ERROR), tracer.trace_session("s") as session:
        for _ in range(2):
            with tracer.trace_turn(session), session.tool_call("t"):
                pass
    assert len(events(tracer)) == 10
    assert tracer.trouble.counts == {"propagation: RuntimeError": 1}
    assert len(caplog.records) == 1


def test_without_opentelemetry_it_is_said_what_to_install_and_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tracebridge_otel.propagation", None)
    with caplog.at_level(logging.ERROR):
        tracer = Tracer({"agent_trace": {"trace_dir": str(tmp_path), "propagate": True}})
    assert "pip install 'tracebridge[otel]'" in caplog.text
    with tracer.trace_session("s") as session, tracer.trace_turn(session):
        pass
    assert len(events(tracer)) == 4
