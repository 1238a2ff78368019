"""Reading back: pages, copies, foreign observations, and servers that cannot be read."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import pytest

from tests.langfuse.conftest import settings_of
from tests.langfuse.scripted import Answer, scripted
from tests.langfuse.test_mapping import REMAINDER, START_NS
from tests.langfuse.test_mapping import span as any_span
from tracebridge.devserver import DevServer
from tracebridge.errors import BackendError
from tracebridge.secret import Secret
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.testing import Fault
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.reader import LangfuseReader, ServerInfo
from tracebridge_langfuse.sink import LangfuseSink
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import WireScope, WireSpan

OBSERVATIONS = "/api/public/v2/observations"


def spans(*each: dict[str, Any]) -> list[Span]:
    """Spans of one trace that no other test has."""
    trace_id = secrets.token_hex(16)
    return [any_span(**{"trace_id": trace_id, **fields}) for fields in each]


def deliver(sink: LangfuseSink, *sent: Span) -> None:
    receipt = sink.deliver(sink.join([sink.encode(span) for span in sent]))
    assert receipt.outcome is Outcome.ACCEPTED, receipt.message


def read_from(answer: Answer, query: Query = Query(session_id="s")) -> list[Span]:  # noqa: B008
    with scripted(answer) as url:
        reader = LangfuseReader(
            LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk-never-shown"), timeout=5.0)
        )
        try:
            return list(reader.read(query))
        finally:
            reader.close()


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}",
        "traceId": "a" * 32,
        "projectId": "p",
        "startTime": "2026-11-21T11:47:55.000Z",
        "endTime": None,
        "type": "SPAN",
    }


def test_more_than_a_page_of_equal_start_times_comes_without_loss_or_repeat(
    sink: LangfuseSink, reader: LangfuseReader
) -> None:
    session = secrets.token_hex(8)
    sent = spans(*({"span_id": f"{number:016x}", "session_id": session} for number in range(1, 1_251)))
    deliver(sink, *sent)
    back = [found.span_id for found in reader.read(Query(session_id=session))]
    assert sorted(back) == [each.span_id for each in sent]


def test_who_needs_one_span_only_is_given_a_small_page(sink: LangfuseSink, reader: LangfuseReader) -> None:
    session = secrets.token_hex(8)
    deliver(sink, *spans(*({"span_id": f"{number:016x}", "session_id": session} for number in range(1, 31))))
    api, sizes = reader._api.observations, []
    get_many = api.get_many

    def counted(**asked: Any) -> Any:
        page = get_many(**asked)
        sizes.append(len(page.data))
        return page

    api.get_many = counted
    try:
        found = reader.read(Query(session_id=session, ids_only=True, enough=1))
        assert next(found).session_id in ("", session)
        assert sizes == [10]
        assert len(list(found)) == 29, "whoever goes on gets the rest"
    finally:
        api.get_many = get_many


def test_a_span_that_is_stored_twice_is_yielded_twice(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (once,) = spans({})
    deliver(sink, once)
    deliver(sink, once)
    query = Query(trace_ids=(once.trace_id,))
    assert [found.span_id for found in reader.read(query)] == [once.span_id] * 2


def test_a_session_is_found_by_the_id_that_was_stored_and_told_from_its_likes(
    sink: LangfuseSink, reader: LangfuseReader
) -> None:
    base = secrets.token_hex(8)
    sessions = [f"{base}\ud800", f"{base}\ufffd", f"{base}\x00"]
    deliver(sink, *spans(*({"span_id": f"{n:016x}", "session_id": name} for n, name in enumerate(sessions, 1))))
    for number, name in enumerate(sessions, 1):
        assert [found.span_id for found in reader.read(Query(session_id=name))] == [f"{number:016x}"]


def test_a_window_holds_its_start_and_not_its_end(sink: LangfuseSink, reader: LangfuseReader) -> None:
    session, start = secrets.token_hex(8), START_NS - START_NS % 10**6
    times = [start - 10**6, start, start + 10**6, start + 2 * 10**6]
    numbered = enumerate(times, 1)
    deliver(sink, *spans(*({"span_id": f"{n:016x}", "session_id": session, "start_ns": ns} for n, ns in numbered)))
    query = Query(session_id=session, start_ns=start, end_ns=start + 2 * 10**6)
    assert sorted(found.start_ns for found in reader.read(query)) == times[1:3]


def test_ids_alone_are_enough_when_only_they_are_asked_for(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (sent,) = spans({"input": "x" * 1_000})
    deliver(sink, sent)
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,), ids_only=True))
    assert (found.trace_id, found.span_id, found.input) == (sent.trace_id, sent.span_id, None)


def test_an_observation_of_somebody_else_is_foreign_and_tells_what_it_can(
    backend: DevServer, reader: LangfuseReader
) -> None:
    trace_id = secrets.token_hex(16)
    wire = WireSpan(
        trace_id=trace_id,
        span_id="b" * 16,
        name="their-call",
        start_ns=START_NS,
        end_ns=START_NS,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "their-model",
            "gen_ai.usage.input_tokens": 3,
            "langfuse.observation.input": '[{"role":"user"}]',
            "langfuse.observation.metadata.plan": '"gold"',
            "session.id": "theirs",
        },
    )
    transport = LangfuseSink(settings_of(backend))
    transport.deliver(join([encode_span(wire)], {"service.name": "other"}, WireScope(name="other")))
    transport.close()
    (found,) = reader.read(Query(trace_ids=(trace_id,)))
    assert found.fingerprint == ""
    assert (found.kind, found.name, found.session_id, found.model) == (
        "llm",
        "their-call",
        "theirs",
        "their-model",
    )
    assert found.input == [{"role": "user"}]
    assert found.usage["input"] == 3
    assert found.metadata == {"plan": "gold"}


@pytest.mark.parametrize(
    "mark",
    ['{"fingerprint": 3', '"{\\"opened\\": 7}"', '"{\\"exact\\": {\\"error\\": 7}}"', "[]", "text"],
)
def test_a_mark_that_somebody_broke_is_no_mark(sink: LangfuseSink, reader: LangfuseReader, mark: str) -> None:
    (sent,) = spans({"input": "x"})
    wire = to_wire(sent)
    broken = msgspec.structs.replace(wire, attributes=wire.attributes | {REMAINDER: mark})
    sink.deliver(sink.join([encode_span(broken)]))
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,)))
    assert (found.fingerprint, found.input) == ("", "x")


def test_the_server_and_the_project_are_named(reader: LangfuseReader) -> None:
    info = reader.check()
    assert isinstance(info, ServerInfo)
    assert info.version.startswith("4.")
    assert info.project


def test_refused_credentials_are_named_and_never_shown(backend: DevServer) -> None:
    reader = LangfuseReader(settings_of(backend, secret_key=Secret("sk-never-shown")))
    with pytest.raises(BackendError, match="check public_key and secret_key") as raised:
        list(reader.read(Query(session_id="s")))
    reader.close()
    assert "sk-never-shown" not in str(raised.value)


def test_a_server_that_is_away_is_named() -> None:
    with scripted(lambda path, _: (200, {})) as url:
        pass
    reader = LangfuseReader(LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk")))
    with pytest.raises(BackendError, match="check the host"):
        list(reader.read(Query(session_id="s")))
    reader.close()


def test_a_server_without_the_route_is_told_to_be_too_old() -> None:
    with pytest.raises(BackendError, match="needs LangFuse v4"):
        read_from(lambda path, _: (404, {"message": "Not Found"}))


def test_an_answer_that_is_no_langfuse_answer_is_an_error() -> None:
    with pytest.raises(BackendError, match="no LangFuse answer"):
        read_from(lambda path, _: (200, {"hello": "world"}))


def test_legacy_mode_whose_answers_are_always_empty_is_no_empty_answer() -> None:
    def legacy(path: str, _: dict[str, str]) -> tuple[int, Any]:
        answers = {OBSERVATIONS: (200, {"data": [], "meta": {}}), "/api/public/traces": (200, {"data": []})}
        return answers.get(path, (404, {"message": "Not Found"}))

    with pytest.raises(BackendError, match=r"`legacy`.*`events_only`"):
        read_from(legacy)


def test_a_server_that_has_nothing_gives_nothing() -> None:
    def events_only(path: str, _: dict[str, str]) -> tuple[int, Any]:
        return (200, {"data": [], "meta": {}}) if path != "/api/public/traces" else (404, {"message": "gone"})

    assert read_from(events_only) == []


def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones() -> None:
    limits: list[int] = []

    def narrow(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        limit, start = int(parameters["limit"]), int(parameters.get("cursor", "0"))
        limits.append(limit)
        if limit > 100:
            return 413, {"message": "response too large"}
        end = min(start + limit, 150)
        return 200, {
            "data": [row(number) for number in range(start, end)],
            "meta": {"cursor": str(end)} if end < 150 else {},
        }

    assert [found.span_id for found in read_from(narrow)] == [f"{number:016x}" for number in range(150)]
    assert max(limits) == 1_000
    assert limits[-1] <= 100


def test_a_rate_limit_is_waited_for(devserver: DevServer) -> None:
    sink, reader = LangfuseSink(settings_of(devserver)), LangfuseReader(settings_of(devserver))
    deliver(sink, *spans({}))
    devserver.faults.add(Fault(route=f"GET {OBSERVATIONS}", status=429, headers={"Retry-After": "1"}, times=1))
    assert len(list(reader.read(Query(session_id="user-1")))) == 1
    sink.close()
    reader.close()


def test_a_query_that_asks_for_everything_is_refused(reader: LangfuseReader) -> None:
    with pytest.raises(ValueError, match="session, a window or trace ids"):
        list(reader.read(Query()))
