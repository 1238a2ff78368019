"""Each kind of fault, seen at the socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from tests.devserver.exports import TRACE_ID, export, span
from tests.waiting import until
from tracebridge.devserver import DevServer
from tracebridge.devserver.otlp import request_from_json
from tracebridge.testing import Fault, Faults

LANGFUSE = "/api/public/otel/v1/traces"
OTLP = "/v1/traces"


def observations(client: httpx.Client) -> int:
    return len(client.get("/api/public/v2/observations").json()["data"])


def otlp_spans(client: httpx.Client) -> int:
    answer = client.get(f"/api/v3/traces/{TRACE_ID}", params={"rawTraces": "true"})
    if answer.status_code == 404:
        return 0
    return len(answer.json()["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"])


@pytest.fixture(params=[(LANGFUSE, observations), (OTLP, otlp_spans)], ids=["langfuse", "otlp"])
def side(request: pytest.FixtureRequest) -> tuple[str, Callable[[httpx.Client], int]]:
    """Where to send a span, and how many are stored there."""
    return request.param


Side = tuple[str, Callable[[httpx.Client], int]]


def test_a_status_with_body_and_headers_stores_nothing(devserver: DevServer, client: httpx.Client, side: Side) -> None:
    route, stored = side
    devserver.faults.add(
        Fault(route=f"POST {route}", status=429, body="slow down", headers={"Retry-After": "7"}, times=1)
    )
    answer = client.post(route, json=export(span()))
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (429, "slow down", "7")
    assert stored(client) == 0
    assert client.post(route, json=export(span())).status_code == 200
    assert stored(client) == 1


@pytest.mark.parametrize(("fault", "count"), [(Fault(drop=True), 0), (Fault(duplicate=True), 2)])
def test_drop_and_duplicate_answer_200(
    devserver: DevServer, client: httpx.Client, side: Side, fault: Fault, count: int
) -> None:
    route, stored = side
    devserver.faults.add(fault)
    assert client.post(route, json=export(span())).status_code == 200
    devserver.faults.clear()
    assert stored(client) == count


@pytest.mark.parametrize(("when", "count"), [("before", 0), ("after", 1)])
def test_a_reset_is_a_reset(devserver: DevServer, client: httpx.Client, side: Side, when: Any, count: int) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", reset=when))
    with pytest.raises(httpx.ReadError, match="reset"):
        client.post(route, json=export(span()))
    assert stored(client) == count


def test_a_truncated_answer_is_shorter_than_it_says(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(route=f"POST {LANGFUSE}", truncate=True))
    received: list[bytes] = []
    with (
        client.stream("POST", LANGFUSE, json=export(span())) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(answer.iter_raw(chunk_size=1))
    assert 0 < len(received) < int(answer.headers["content-length"])
    assert observations(client) == 1


def test_a_truncated_error_is_shorter_than_it_says(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(route=f"POST {LANGFUSE}", truncate=True, status=500, body="0123456789"))
    # what it did not read of the request makes the end of its answer a reset, if that is faster
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.post(LANGFUSE, json=export(span()))
    assert observations(client) == 0


def test_latency_holds_the_answer_back(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(route="GET /api/public/health", latency_s=0.2))
    before = time.monotonic()
    assert client.get("/api/public/health").status_code == 200
    assert time.monotonic() - before >= 0.2


def test_a_lag_hides_what_is_stored(devserver: DevServer, client: httpx.Client, side: Side) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", visibility_lag_s=3600, times=1))
    client.post(route, json=export(span(spanId="00000000000000aa")))
    assert stored(client) == 0
    client.post(route, json=export(span()))
    assert stored(client) == 1


def test_behind_a_queue_nothing_is_readable_before_what_was_stored_earlier(
    devserver: DevServer, client: httpx.Client, side: Side
) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", visibility_lag_s=3600, in_order=True, times=1))
    client.post(route, json=export(span(spanId="00000000000000aa")))
    client.post(route, json=export(span()))
    assert stored(client) == 0


def test_a_lag_ends(devserver: DevServer, client: httpx.Client, side: Side) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", visibility_lag_s=0.05))
    client.post(route, json=export(span()))
    deadline = time.monotonic() + 5
    while stored(client) == 0:
        assert time.monotonic() < deadline


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_a_hanging_request_waits_for_its_release(devserver: DevServer, client: httpx.Client, side: Side) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", hang=True))
    answers: list[int] = []
    sender = threading.Thread(target=lambda: answers.append(client.post(route, json=export(span())).status_code))
    sender.start()
    eventually(lambda: devserver.faults.held == 1)
    assert (stored(client), answers) == (0, [])
    devserver.faults.release()
    sender.join()
    assert (stored(client), answers) == (1, [200])


def test_requests_are_counted_by_route_also_when_struck(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(route="GET /api/v3/*", status=503, first=1))
    client.get("/api/v3/traces/aa")
    client.get("/api/v3/traces/bb")
    client.get("/api/public/health")
    client.get("/dev/faults")
    assert devserver.requests == {"GET /api/v3/traces/{trace_id}": 2, "GET /api/public/health": 1}


# gRPC


@pytest.fixture
def stub(devserver: DevServer) -> Iterator[TraceServiceStub]:
    assert devserver.grpc_endpoint is not None
    with grpc.insecure_channel(devserver.grpc_endpoint) as channel:
        yield TraceServiceStub(channel)


@pytest.mark.parametrize(
    ("fault", "code", "count"),
    [
        (Fault(status=503), grpc.StatusCode.UNAVAILABLE, 0),
        (Fault(status=429), grpc.StatusCode.RESOURCE_EXHAUSTED, 0),
        (Fault(status=401), grpc.StatusCode.UNAUTHENTICATED, 0),
        (Fault(status=400), grpc.StatusCode.INVALID_ARGUMENT, 0),
        (Fault(status=599), grpc.StatusCode.UNAVAILABLE, 0),
        (Fault(reset="before"), grpc.StatusCode.UNAVAILABLE, 0),
        (Fault(reset="after"), grpc.StatusCode.UNAVAILABLE, 1),
    ],
)
def test_faults_of_grpc_calls_are_status_codes(
    devserver: DevServer, client: httpx.Client, stub: TraceServiceStub, fault: Fault, code: Any, count: int
) -> None:
    devserver.faults.add(fault)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Export(request_from_json(export(span())), timeout=5)
    assert caught.value.code() is code
    devserver.faults.clear()
    assert otlp_spans(client) == count


@pytest.mark.parametrize(("fault", "count"), [(Fault(drop=True), 0), (Fault(duplicate=True), 2), (Fault(), 1)])
def test_grpc_calls_are_dropped_and_duplicated(
    devserver: DevServer, client: httpx.Client, stub: TraceServiceStub, fault: Fault, count: int
) -> None:
    devserver.faults.add(fault)
    stub.Export(request_from_json(export(span())), timeout=5)
    devserver.faults.clear()
    assert otlp_spans(client) == count


def test_a_hanging_grpc_call_meets_its_deadline() -> None:
    faults = Faults([Fault(route="GRPC *", hang=True)])
    # a backend of its own: the call is stored when it is released at the end
    with DevServer(grpc_port=0, faults=faults) as server:
        assert server.grpc_endpoint is not None
        with grpc.insecure_channel(server.grpc_endpoint) as channel:
            stub = TraceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Export(request_from_json(export(span())), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_otlp_says_how_many_spans_it_refused_over_http(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(reject=2, body="too old", times=1))
    answer = client.post(OTLP, json=export(*(span(spanId=f"{number:016x}") for number in range(1, 4)))).json()
    assert answer == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}
    assert otlp_spans(client) == 1


def test_otlp_says_how_many_spans_it_refused_over_grpc(devserver: DevServer, client: httpx.Client) -> None:
    devserver.faults.add(Fault(reject=1, body_contains="poison", times=1))
    assert devserver.grpc_endpoint is not None
    with grpc.insecure_channel(devserver.grpc_endpoint) as channel:
        call = TraceServiceStub(channel).Export
        good = call(request_from_json(export(span(spanId="00000000000000a1"))))
        bad = call(request_from_json(export(span(spanId="00000000000000a2", name="poison"))))
    assert (good.partial_success.rejected_spans, bad.partial_success.rejected_spans) == (0, 1)
    assert otlp_spans(client) == 1


@pytest.mark.parametrize("late", [{"hang": True}, {"latency_s": 0.4}], ids=["hangs", "slow"])
def test_what_came_in_whole_is_stored_though_its_client_has_gone(
    devserver: DevServer, client: httpx.Client, side: Side, late: dict[str, Any]
) -> None:
    route, stored = side
    devserver.faults.add(Fault(route=f"POST {route}", times=1, **late))
    with pytest.raises(httpx.ReadTimeout):
        client.post(route, json=export(span()), timeout=0.1)
    devserver.faults.release()
    until(lambda: stored(client) == 1, "it is stored")
