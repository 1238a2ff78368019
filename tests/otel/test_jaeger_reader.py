from __future__ import annotations

import socket

import msgspec
import pytest

from tests.otel.every_reader import EveryReader
from tests.otel.test_law import deliver, exact, read, settings_for
from tests.otlp.scripted_server import answering, http_answer, scripted_server
from tracebridge.devserver import DevServer
from tracebridge.errors import BackendError
from tracebridge.secret import Secret
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge.testing import Fault
from tracebridge_otel.configuration import OtelSettings, ReaderSettings

SECOND = 1_000_000_000
START = 1_770_000_000 * SECOND
EVERYTHING = Query(start_ns=0, end_ns=4_000_000_000 * SECOND)


def turn(number: int, session_id: str = "s", start_ns: int | None = None, trace: int | None = None) -> Span:
    start_ns = START + number * SECOND if start_ns is None else start_ns
    return Span(
        kind="turn",
        trace_id=f"{number + 1 if trace is None else trace:032x}",
        span_id=f"{number + 1:016x}",
        name="turn",
        start_ns=start_ns,
        end_ns=start_ns + SECOND,
        session_id=session_id,
        fingerprint="f1",
    )


@pytest.fixture
def settings(devserver: DevServer) -> OtelSettings:
    return settings_for(devserver, "http/protobuf")


class TestJaeger(EveryReader):
    @pytest.fixture
    def one(self) -> Span:
        return turn(1)


def test_a_session_is_read_without_other_sessions(settings: OtelSettings) -> None:
    ours, others = [turn(1, "a"), turn(2, "a")], [turn(3, "b"), turn(4, 'a"')]
    deliver(settings, ours + others)
    assert exact(read(settings, Query(session_id="a")), settings) == exact(ours, settings)


@pytest.mark.parametrize("session_id", ['"quoted"', "a b&c=d", "漢字\U0001f600", "{}"])
def test_a_session_of_any_name_is_found(settings: OtelSettings, session_id: str) -> None:
    deliver(settings, [turn(1, session_id), turn(2, "other")])
    assert [span.session_id for span in read(settings, Query(session_id=session_id))] == [session_id]


@pytest.mark.parametrize("size", [4_000, 200_000])
def test_a_session_with_an_id_that_no_address_holds_is_read_without_others(settings: OtelSettings, size: int) -> None:
    long = "s" * size
    ours = [turn(1, long), msgspec.structs.replace(turn(2, "", trace=2), fingerprint="", session_id="")]
    others = [turn(3, long[:-1]), turn(4, "b"), msgspec.structs.replace(turn(5, ""), fingerprint="", session_id="")]
    deliver(settings, [*ours, *others])
    assert exact(read(settings, Query(session_id=long)), settings) == exact(ours, settings)


def test_a_window_includes_its_start_and_excludes_its_end(settings: OtelSettings) -> None:
    deliver(settings, [turn(number) for number in range(5)])
    query = Query(start_ns=START + SECOND, end_ns=START + 3 * SECOND)
    assert {span.start_ns for span in read(settings, query)} == {START + SECOND, START + 2 * SECOND}


def test_all_that_a_query_gives_holds_at_once(settings: OtelSettings) -> None:
    batch = [turn(1, "a"), turn(2, "b"), turn(3, "a")]
    deliver(settings, batch)
    query = Query(
        session_id="a",
        trace_ids=(batch[0].trace_id, batch[1].trace_id),
        start_ns=START,
        end_ns=START + 9 * SECOND,
    )
    assert [span.span_id for span in read(settings, query)] == [batch[0].span_id]


def test_more_traces_than_a_search_returns_are_all_found_once(settings: OtelSettings, devserver: DevServer) -> None:
    batch = [turn(number, start_ns=START + number * 1_000) for number in range(450)]
    deliver(settings, batch)
    assert exact(read(settings, EVERYTHING), settings) == exact(batch, settings)
    assert exact(read(settings, Query(session_id="s")), settings) == exact(batch, settings)
    # the halving goes by what was found, not by the calendar
    assert devserver.requests["GET /api/v3/traces"] < 30


def test_who_needs_one_span_only_is_not_given_all(settings: OtelSettings, devserver: DevServer) -> None:
    batch = [turn(number, start_ns=START + number * 1_000) for number in range(450)]
    deliver(settings, batch)
    query = Query(start_ns=0, end_ns=EVERYTHING.end_ns, ids_only=True, enough=1)
    assert len(read(settings, query)) == 1
    assert devserver.requests["GET /api/v3/traces"] == 1


def test_more_traces_at_one_moment_than_a_search_returns_is_an_error_and_not_a_short_answer(
    settings: OtelSettings,
) -> None:
    deliver(settings, [turn(number, start_ns=START) for number in range(250)])
    with pytest.raises(BackendError, match="same microsecond"):
        read(settings, EVERYTHING)


def test_a_trace_that_reaches_over_two_windows_is_read_once(settings: OtelSettings) -> None:
    long = [turn(number, trace=7, start_ns=START + number * 1_000) for number in range(300)]
    others = [turn(1_000 + number, start_ns=START + number * 1_000) for number in range(300)]
    deliver(settings, long + others)
    assert exact(read(settings, EVERYTHING), settings) == exact(long + others, settings)


def test_ids_alone_are_read_with_the_mark(settings: OtelSettings) -> None:
    deliver(settings, [turn(1)])
    (span,) = read(settings, Query(trace_ids=(turn(1).trace_id,), ids_only=True))
    assert (span.trace_id, span.span_id, span.fingerprint) == (turn(1).trace_id, turn(1).span_id, "f1")


def test_a_span_at_a_fraction_of_a_microsecond_is_in_the_window_that_begins_with_it(
    settings: OtelSettings,
) -> None:
    span = turn(1, start_ns=START + 1_999)
    deliver(settings, [span])
    assert len(read(settings, Query(start_ns=START + 1_999, end_ns=START + 2_000))) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(route="GET /api/v3/*", status=503, body="query storage is away"),
            "HTTP 503: query storage is away",
        ),
        (Fault(route="GET /api/v3/*", status=401), "HTTP 401"),
        (Fault(route="GET /api/v3/*", reset="before"), "/api/v3/traces"),
        (Fault(route="GET /api/v3/*", truncate=True), "/api/v3/traces"),
    ],
)
def test_trouble_with_the_backend_is_one_kind_of_error_that_says_what_was_asked(
    settings: OtelSettings, devserver: DevServer, fault: Fault, words: str
) -> None:
    deliver(settings, [turn(1)])
    devserver.faults.add(fault)
    with pytest.raises(BackendError) as caught:
        read(settings, Query(session_id="s"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(200, "text/html", b"<html>Please log in</html>"),
        http_answer(200, "application/json", b"[]"),
        http_answer(200, "application/json", b'{"error": {"httpCode": 500}}'),
        http_answer(200, "application/json", b'{"result": {"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}}'),
        http_answer(302, "", b"", "Location: /login"),
        http_answer(404, "text/html", b"<h1>Not Found</h1>"),
    ],
)
def test_an_answer_that_is_not_jaegers_is_an_error_and_never_nothing(answer: bytes) -> None:
    with scripted_server(answering(answer)) as url, pytest.raises(BackendError):
        read(OtelSettings(reader=ReaderSettings(url=url)), Query(trace_ids=("1" * 32,)))


def test_a_streamed_answer_is_read_line_by_line() -> None:
    spans = [turn(1), turn(2)]
    lines = [
        {"result": {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": s.trace_id, "spanId": s.span_id}]}]}]}}
        for s in spans
    ]
    answer = http_answer(200, "application/json", b"\n".join(map(msgspec.json.encode, lines)))
    with scripted_server(answering(answer)) as url:
        found = read(OtelSettings(reader=ReaderSettings(url=url)), Query(trace_ids=("1" * 32,)))
    assert [span.span_id for span in found] == [span.span_id for span in spans]


def test_headers_are_sent_and_never_shown() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(http_answer(403, "text/plain", b"hunter22 is not welcome"))

    with scripted_server(script) as url:
        reader = ReaderSettings(url=url, headers={"x-key": Secret("hunter22")})
        with pytest.raises(BackendError) as caught:
            read(OtelSettings(reader=reader), Query(session_id="s"))
    assert b"x-key: hunter22" in requests[0]
    assert "hunter22" not in str(caught.value)
