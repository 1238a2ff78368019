"""Tempo's reader, against the development backend and against answers that no Tempo should give."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.otel.every_reader import EveryReader
from tests.otel.test_jaeger_reader import turn
from tests.otel.test_law import deliver, exact, read
from tests.otlp.scripted_server import answering, http_answer, scripted_server
from tracebridge.devserver import DevServer, Tempo
from tracebridge.errors import BackendError, IncompleteAnswerError
from tracebridge.secret import Secret
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge.testing import Fault
from tracebridge_otel.configuration import OtelSettings, ReaderSettings
from tracebridge_otel.factory import sink_type

SECOND = 1_000_000_000
START = (time.time_ns() // SECOND - 3_600) * SECOND
AN_HOUR = Query(start_ns=START, end_ns=START + 3_600 * SECOND)
NOBODYS = Query(trace_ids=("1" * 32,))
SEARCH = "GET /api/search"
TRACE = "GET /api/v2/traces/{trace_id}"


def at(number: int, session_id: str = "s", *, after_ns: int | None = None, trace: int | None = None) -> Span:
    return turn(number, session_id, START + (number * SECOND if after_ns is None else after_ns), trace)


@pytest.fixture(scope="module")
def finding() -> Iterator[DevServer]:
    """A backend whose searches find spans of any age."""
    with DevServer(grpc_port=0, tempo=Tempo(searchable_s=None)) as server:
        yield server


@pytest.fixture
def server(finding: DevServer) -> DevServer:
    finding.clear()
    return finding


@pytest.fixture
def settings(server: DevServer) -> OtelSettings:
    return reading(server.url)


class TestTempo(EveryReader):
    @pytest.fixture
    def one(self) -> Span:
        return at(1)


def reading(url: str, headers: dict[str, Secret] | None = None) -> OtelSettings:
    return OtelSettings(endpoint=url, reader=ReaderSettings(type="tempo", url=url, headers=headers or {}))


def test_traces_are_read_by_their_ids_without_a_search(settings: OtelSettings, server: DevServer) -> None:
    batch = [at(1), at(2), at(3)]
    deliver(settings, batch)
    wanted = Query(trace_ids=(batch[0].trace_id, batch[1].trace_id, batch[0].trace_id))
    assert exact(read(settings, wanted), settings) == exact(batch[:2], settings)
    assert (server.requests[TRACE], SEARCH in server.requests) == (2, False)


def test_a_session_is_read_without_other_sessions(settings: OtelSettings) -> None:
    ours, others = [at(1, "a"), at(2, "a")], [at(3, "b"), at(4, 'a"')]
    deliver(settings, ours + others)
    assert exact(read(settings, Query(session_id="a")), settings) == exact(ours, settings)


@pytest.mark.parametrize(
    "session_id",
    [
        '"quoted"',
        'x" || span.session.id = "other',
        '" } || { true',
        "back\\slash\\",
        "a b&c=d#e%f+g",
        "漢字\U0001f600",
        "{}",
        "`$(id)`",
        "line\nbreak\ttab\r\0\x01\x7f\u2028",
    ],
)
def test_a_session_of_any_name_is_found_and_no_other(settings: OtelSettings, session_id: str) -> None:
    deliver(settings, [at(1, session_id), at(2, "other")])
    assert [span.session_id for span in read(settings, Query(session_id=session_id))] == [session_id]


def test_a_window_includes_its_start_and_excludes_its_end_to_the_nanosecond(settings: OtelSettings) -> None:
    deliver(settings, [at(number, after_ns=SECOND + number) for number in range(5)])
    query = Query(start_ns=START + SECOND + 1, end_ns=START + SECOND + 3)
    assert {span.start_ns - START for span in read(settings, query)} == {SECOND + 1, SECOND + 2}


def test_all_that_a_query_gives_holds_at_once(settings: OtelSettings) -> None:
    batch = [at(1, "a"), at(2, "b"), at(3, "a")]
    deliver(settings, batch)
    traces = (batch[0].trace_id, batch[1].trace_id)
    query = Query(session_id="a", trace_ids=traces, start_ns=START, end_ns=START + 9 * SECOND)
    assert [span.span_id for span in read(settings, query)] == [batch[0].span_id]


def test_more_traces_than_a_search_returns_are_all_found_once(settings: OtelSettings, server: DevServer) -> None:
    batch = [at(number) for number in range(450)]
    deliver(settings, batch)
    for query in (AN_HOUR, Query(session_id="s"), Query(start_ns=0, end_ns=time.time_ns())):
        assert exact(read(settings, query), settings) == exact(batch, settings)
    # the halving goes by what was found, not by the calendar
    assert server.requests[SEARCH] < 40


def test_more_traces_in_one_second_than_a_search_returns_are_all_found_once(settings: OtelSettings) -> None:
    batch = [at(number, after_ns=number) for number in range(450)]
    deliver(settings, batch)
    assert exact(read(settings, AN_HOUR), settings) == exact(batch, settings)


def test_more_traces_in_one_second_than_can_be_listed_is_an_error_and_not_a_short_answer() -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        if b"/api/search" in request:
            limit = int(request.partition(b"limit=")[2].partition(b"&")[0])
            body = b'{"traces": [%b]}' % b",".join(b'{"traceID": "1"}' for _ in range(limit))
        else:
            body = b'{"trace": {}}'
        connection.sendall(http_answer(200, "application/json", body))

    one_second = Query(start_ns=START, end_ns=START + SECOND, ids_only=True)
    with scripted_server(script) as url, pytest.raises(BackendError, match="it cannot list all"):
        read(reading(url), one_second)


def test_a_month_is_searched_week_by_week(settings: OtelSettings, server: DevServer) -> None:
    deliver(settings, [at(1)])
    assert len(read(settings, Query(session_id="s"))) == 1
    assert server.requests[SEARCH] == 5


def test_who_needs_one_span_only_is_not_given_all(settings: OtelSettings, server: DevServer) -> None:
    deliver(settings, [at(number) for number in range(30)])
    reader = sink_type.open_reader(settings)
    assert next(reader.read(Query(start_ns=START, end_ns=AN_HOUR.end_ns, ids_only=True, enough=1)), None) is not None
    reader.close()
    assert server.requests[TRACE] == 1


def test_a_trace_that_reaches_over_two_windows_is_read_once(settings: OtelSettings) -> None:
    long = [at(number, trace=7) for number in range(300)]
    others = [at(1_000 + number, after_ns=number * SECOND) for number in range(300)]
    deliver(settings, long + others)
    assert exact(read(settings, AN_HOUR), settings) == exact(long + others, settings)


def test_what_was_old_when_it_came_is_found_by_its_trace_and_not_by_a_search() -> None:
    with DevServer() as server:
        settings = reading(server.url)
        deliver(settings, [at(1)])
        assert read(settings, Query(session_id="s")) == []
        assert len(read(settings, Query(trace_ids=(at(1).trace_id,)))) == 1


@pytest.mark.parametrize("ids_only", [False, True])
def test_a_part_of_a_trace_is_an_error_that_says_so_and_what_to_do(
    settings: OtelSettings, server: DevServer, ids_only: bool
) -> None:
    deliver(settings, [at(number, trace=1) for number in range(4)])
    server.faults.add(Fault(route="GET /api/v2/traces/*", partial=True))
    for query in (Query(trace_ids=(at(1, trace=1).trace_id,), ids_only=ids_only), Query(session_id="s")):
        with pytest.raises(IncompleteAnswerError, match=r"only a part of this trace .*raise .*max_bytes_per_trace"):
            read(settings, query)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(route="GET /api/*", status=503, body="queriers are away"), "HTTP 503: queriers are away"),
        (Fault(route="GET /api/*", status=500, body="trace exceeds max size"), "HTTP 500: trace exceeds max size"),
        (Fault(route="GET /api/*", status=401), "HTTP 401"),
        (Fault(route="GET /api/*", status=429), "HTTP 429"),
        (Fault(route="GET /api/*", reset="before"), "/api/"),
        (Fault(route="GET /api/*", truncate=True), "/api/"),
    ],
)
@pytest.mark.parametrize("query", [Query(session_id="s"), Query(trace_ids=(at(1).trace_id,))])
def test_trouble_with_the_backend_is_one_kind_of_error_that_says_what_was_asked(
    settings: OtelSettings, server: DevServer, query: Query, fault: Fault, words: str
) -> None:
    deliver(settings, [at(1)])
    server.faults.add(fault)
    with pytest.raises(BackendError) as caught:
        read(settings, query)
    assert words in str(caught.value)


@pytest.mark.parametrize("query", [Query(session_id="s"), NOBODYS])
@pytest.mark.parametrize(
    "answer",
    [
        http_answer(200, "text/html", b"<html>Please log in</html>"),
        http_answer(200, "application/json", b"[]"),
        http_answer(200, "application/json", b"{}"),
        http_answer(200, "application/json", b'{"error": "no"}'),
        http_answer(200, "application/protobuf", b""),
        http_answer(200, "application/protobuf", b"\xff\xff"),
        http_answer(204, "", b""),
        http_answer(302, "", b"", "Location: /login"),
        http_answer(404, "text/html", b"<h1>Not Found</h1>"),
        http_answer(404, "", b""),
    ],
)
def test_an_answer_that_is_not_tempos_is_an_error_and_never_nothing(query: Query, answer: bytes) -> None:
    with scripted_server(answering(answer)) as url, pytest.raises(BackendError):
        read(reading(url), query)


def test_what_cannot_be_read_as_protobuf_is_asked_for_as_json() -> None:
    """So it may be with a text that Tempo has cut within a character."""
    span = b'{"traceId": "AQEBAQEBAQEBAQEBAQEBAQ==", "spanId": "AgICAgICAgI=", "name": "x"}'
    body = b'{"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [%b]}]}]}, "status": "COMPLETE"}' % span

    def script(connection: socket.socket, request: bytes) -> None:
        is_json = b"accept: application/json" in request.lower()
        kind, content = ("application/json", body) if is_json else ("application/protobuf", b"\x0a\x02\xff\xff")
        connection.sendall(http_answer(200, kind, content))

    with scripted_server(script) as url:
        (found,) = read(reading(url), NOBODYS)
    assert (found.trace_id, found.span_id) == ("01" * 16, "02" * 8)


def test_the_tenant_and_other_headers_are_sent_and_credentials_never_shown() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(http_answer(403, "text/plain", b"hunter22 is not welcome"))

    headers = {"X-Scope-OrgID": Secret("tenant-a"), "authorization": Secret("hunter22")}
    with scripted_server(script) as url:
        for query in (Query(session_id="s"), NOBODYS):
            with pytest.raises(BackendError) as caught:
                read(reading(url, headers), query)
            assert "hunter22" not in str(caught.value)
    for request in requests:
        assert b"x-scope-orgid: tenant-a" in request
        assert b"authorization: hunter22" in request
