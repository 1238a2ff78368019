"""What gRPC's status codes mean, by OTLP's table: each answered by a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tests.otlp.scripted_collector import failing
from tests.otlp.scripted_server import Script, answering, free_port, http_answer, reset, scripted_server
from tests.outcomes.backend import GrpcBackend, HttpBackend, Reply, Rule, in_turn, keeps_all, where
from tests.outcomes.case import Case, assert_sent_again_until_taken
from tests.outcomes.conftest import TrialWith
from tests.outcomes.trial import FEW_SPANS, PATIENT_S, TOKEN, Trial, otel

TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
AUTHORITY = str(TLS / "authority.pem")
TIMEOUT_S = 0.8
LIMIT = 20_000


class GrpcTrial(Protocol):
    """Makes the trial of an `otel` sink over gRPC against a backend that answers by a rule."""

    def __call__(self, rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, GrpcBackend]: ...


def replying(body: bytes) -> Callable[..., bytes]:
    return lambda *_: body


ACCEPT = Reply(replying(b""), keeps=keeps_all)


def status(code: str, details: str = "", retry_s: float | None = None) -> Reply:
    retry = None if retry_s is None else RetryInfo(retry_delay=Duration(nanos=int(retry_s * 1e9)))
    return Reply(failing(getattr(grpc.StatusCode, code), details, retry))


def hang(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer once the client has given the call up."""
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait(10)
    return b""


def crash(*_: Any) -> bytes:
    raise RuntimeError("panic")


HUGE = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(error_message="x" * 5_000_000))

CASES = [
    Case("UNIMPLEMENTED", status("UNIMPLEMENTED", "no such service"), False, "gRPC UNIMPLEMENTED: no such service"),
    Case("NOT_FOUND", status("NOT_FOUND"), False, "gRPC NOT_FOUND"),
    Case("RESOURCE_EXHAUSTED", status("RESOURCE_EXHAUSTED", "quota"), False, "gRPC RESOURCE_EXHAUSTED: quota"),
    Case(
        "RESOURCE_EXHAUSTED with RetryInfo",
        status("RESOURCE_EXHAUSTED", "quota", 0.01),
        False,
        "gRPC RESOURCE_EXHAUSTED: quota",
    ),
    Case("UNAVAILABLE with RetryInfo", status("UNAVAILABLE", f"busy {TOKEN}", 0.01), False, "UNAVAILABLE: busy ***"),
    Case("UNAVAILABLE", status("UNAVAILABLE", "going away"), True, "gRPC UNAVAILABLE: going away"),
    Case("CANCELLED", status("CANCELLED"), True, "gRPC CANCELLED"),
    Case("DEADLINE_EXCEEDED", status("DEADLINE_EXCEEDED"), True, "gRPC DEADLINE_EXCEEDED"),
    Case("ABORTED", status("ABORTED"), True, "gRPC ABORTED"),
    Case("OUT_OF_RANGE", status("OUT_OF_RANGE"), True, "gRPC OUT_OF_RANGE"),
    Case("DATA_LOSS", status("DATA_LOSS"), True, "gRPC DATA_LOSS"),
    Case("INTERNAL", status("INTERNAL"), True, "gRPC INTERNAL"),
    Case("UNKNOWN", status("UNKNOWN"), True, "gRPC UNKNOWN"),
    Case("a server that raises", Reply(crash), True, "gRPC UNKNOWN"),
    Case("no answer in time", Reply(hang), True, "gRPC DEADLINE_EXCEEDED", TIMEOUT_S),
    Case("an answer that is garbage", Reply(replying(b"\xff\xff")), True, "gRPC INTERNAL"),
    Case("an answer of 5 MB", Reply(replying(HUGE.SerializeToString())), True, "larger than max"),
]


@pytest.fixture
def grpc_trial(trial_with: TrialWith) -> Iterator[GrpcTrial]:
    """Makes the trial of an `otel` sink over gRPC against a backend that answers by a rule."""
    with ExitStack() as stack:

        def make(rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, GrpcBackend]:
            backend = GrpcBackend(rule)
            url = stack.enter_context(backend.serving())
            return trial_with(otel(url, protocol="grpc", timeout=timeout), backend), backend

        yield make


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_bytes_are_sent_again_until_they_are_taken(grpc_trial: GrpcTrial, case: Case) -> None:
    trial, backend = grpc_trial(in_turn([case.reply, case.reply], then=ACCEPT), timeout=case.timeout)
    assert_sent_again_until_taken(trial, backend, case)


def test_the_delay_of_a_retry_info_is_obeyed_although_it_is_longer_than_the_time_out(grpc_trial: GrpcTrial) -> None:
    trial, backend = grpc_trial(in_turn([status("UNAVAILABLE", "busy", 0.9)], then=ACCEPT), timeout=TIMEOUT_S)
    trial.write("one")
    trial.ship()
    first, second = (request.at for request in backend.requests)
    assert 0.9 <= second - first < 1.9


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "ALREADY_EXISTS", "FAILED_PRECONDITION"])
def test_one_refused_span_is_a_dead_letter_and_its_neighbours_arrive(grpc_trial: GrpcTrial, code: str) -> None:
    trial, _ = grpc_trial(where("poison", status(code, f"bad span, {TOKEN}"), otherwise=ACCEPT))
    trial.write("bad", tool="poison", turns=1)
    trial.write("good")
    trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead()[culprit].endswith(f"gRPC {code}: bad span, ***")


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_refused_credentials_pause_the_sink_after_one_call(grpc_trial: GrpcTrial, code: str) -> None:
    trial, backend = grpc_trial(lambda _: status(code, f"no such token: {TOKEN}"))
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("paused"), "a pause")
    for request in range(20):
        assert not trial.shipper.round(request).is_done
    assert len(backend.requests) == 1
    assert trial.condition().endswith(f"gRPC {code}: no such token: ***")
    assert trial.said() == [f"sink otel: {trial.condition()}"]
    trial.close()
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()


@pytest.mark.parametrize(
    "refusal",
    [
        status("RESOURCE_EXHAUSTED", "grpc: received message larger than max (40000 vs. 20000)"),
        status("OUT_OF_RANGE", "message length too large: 40000 bytes, the limit is 20000"),
        status("UNKNOWN", "Received http2 header with status: 413"),
        status("UNKNOWN", "Payload Too Large"),
    ],
    ids=["RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "a proxy's 413", "a proxy's words"],
)
def test_a_request_that_is_too_large_is_split_until_it_fits(grpc_trial: GrpcTrial, refusal: Reply) -> None:
    trial, backend = grpc_trial(lambda request: refusal if len(request.body) > LIMIT else ACCEPT)
    trial.write("one", turns=10, result="x" * 5_000)
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests[0].body) > LIMIT
    assert trial.dead() == {}


def test_a_rate_that_is_counted_in_bytes_costs_no_content(grpc_trial: GrpcTrial) -> None:
    limited = status("RESOURCE_EXHAUSTED", "ingestion rate limit (100 bytes) exceeded while adding 5000 bytes")
    trial, backend = grpc_trial(in_turn([limited] * 3, then=ACCEPT))
    trial.write("one", result="x" * 5_000)
    trial.ship()
    trial.assert_all_arrived_once()
    assert len({request.body for request in backend.requests}) == 1
    assert trial.counter("cut_spans") == 0


def test_a_partial_success_is_read(grpc_trial: GrpcTrial) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message=f"two were bad, {TOKEN}")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    trial, _ = grpc_trial(lambda _: Reply(replying(body)))
    trial.write("one")
    trial.ship()
    assert trial.dead() == dict.fromkeys(trial.owed(), "2 of 7 spans refused: two were bad, ***")


def test_a_server_that_refuses_connections_gets_everything_once_it_is_there(trial_with: TrialWith) -> None:
    port = free_port()
    backend = GrpcBackend(lambda _: ACCEPT)
    trial = trial_with(otel(f"http://127.0.0.1:{port}", protocol="grpc", timeout=PATIENT_S), backend)
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
    assert "gRPC UNAVAILABLE: failed to connect to all addresses" in trial.condition()
    with backend.serving(port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(answering(http_answer(400)), id="a server that speaks HTTP 1"),
        pytest.param(reset, id="a server that breaks off"),
    ],
)
def test_a_server_that_speaks_no_grpc_is_tried_again(trial_with: TrialWith, script: Script) -> None:
    port = free_port()
    backend = GrpcBackend(lambda _: ACCEPT)
    trial = trial_with(otel(f"http://127.0.0.1:{port}", protocol="grpc", timeout=PATIENT_S), backend)
    trial.write("one")
    with scripted_server(script, port=port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
    assert "gRPC UNAVAILABLE" in trial.condition()
    assert trial.dead() == {}
    with backend.serving(port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0


@pytest.mark.parametrize(
    ("certificate", "authority"),
    [
        pytest.param("", AUTHORITY, id="a server without TLS"),
        pytest.param("good.pem", "", id="an authority that is not trusted"),
        pytest.param("other-name.pem", AUTHORITY, id="a certificate for another name"),
        pytest.param("expired.pem", AUTHORITY, id="a certificate that has expired"),
    ],
)
def test_nothing_is_sent_over_tls_before_the_server_is_trusted(
    trial_with: TrialWith, certificate: str, authority: str
) -> None:
    backend = GrpcBackend(lambda _: ACCEPT)
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    trial = trial_with(otel(url, protocol="grpc", timeout=PATIENT_S, certificate=authority), backend)
    trial.write("one")
    with backend.serving(tls=server_side(certificate) if certificate else None, port=port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
        trial.close()
    assert backend.requests == []
    assert trial.dead() == {}
    assert trial.account().in_flight_spans == FEW_SPANS

    trial.sink = otel(url, protocol="grpc", timeout=PATIENT_S, certificate=AUTHORITY)
    with backend.serving(tls=server_side("good.pem"), port=port):
        trial.ship()
    trial.assert_all_arrived_once()


def server_side(certificate: str) -> grpc.ServerCredentials:
    pem = (TLS / certificate).read_bytes()
    return grpc.ssl_server_credentials([(pem, pem)])


def test_a_name_that_does_not_resolve_is_tried_again(trial_with: TrialWith) -> None:
    settings = otel("http://no-such-host.invalid:4317", protocol="grpc", timeout=2.0)
    trial = trial_with(settings, HttpBackend(lambda _: ACCEPT))
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
    # on a slow machine the next try is out by now
    trial.ship_until(lambda: trial.fates() == ["unsent"], "its end")
    assert trial.dead() == {}
    assert len(trial.said_of_trouble()) == 1
