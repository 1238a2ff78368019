from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tests.otlp.scripted_collector import collector, failing
from tests.otlp.scripted_server import Script, scripted_server
from tracebridge.errors import ConfigurationError
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.grpc_transport import CallFailure, GrpcTransport, receipt_of_call
from tracebridge_otlp.http_transport import Certificates

SECRET = "Bearer s3cr3t-token"


def post(endpoint: str, timeout_s: float = 5.0) -> Receipt:
    with GrpcTransport(endpoint, headers={"Authorization": SECRET}, timeout_s=timeout_s) as transport:
        return transport.post(b"\x0a\x00")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("CANCELLED", Outcome.UNKNOWN),
        ("UNKNOWN", Outcome.UNKNOWN),
        ("INVALID_ARGUMENT", Outcome.REJECTED),
        ("DEADLINE_EXCEEDED", Outcome.UNKNOWN),
        ("NOT_FOUND", Outcome.RETRY),
        ("ALREADY_EXISTS", Outcome.REJECTED),
        ("PERMISSION_DENIED", Outcome.UNAUTHORIZED),
        ("UNAUTHENTICATED", Outcome.UNAUTHORIZED),
        ("RESOURCE_EXHAUSTED", Outcome.RETRY),
        ("FAILED_PRECONDITION", Outcome.REJECTED),
        ("ABORTED", Outcome.UNKNOWN),
        ("OUT_OF_RANGE", Outcome.UNKNOWN),
        ("UNIMPLEMENTED", Outcome.RETRY),
        ("INTERNAL", Outcome.UNKNOWN),
        ("UNAVAILABLE", Outcome.UNKNOWN),
        ("DATA_LOSS", Outcome.UNKNOWN),
    ],
)
def test_every_status_code_means_one_outcome(code: str, outcome: Outcome) -> None:
    assert code in grpc.StatusCode.__members__
    assert receipt_of_call(CallFailure(code=code)).outcome is outcome


def test_an_unavailable_server_that_says_when_to_come_again_has_not_taken_anything() -> None:
    failure = CallFailure(code="UNAVAILABLE", details="busy", retry_after_s=1.0)
    assert receipt_of_call(failure).outcome is Outcome.RETRY


@pytest.mark.parametrize(
    ("details", "retry_after_s"),
    [
        ("RATE_LIMITED: ingestion rate limit (local: 100 bytes, global: 0 bytes) exceeded while adding 10 bytes", None),
        ("LIVE_TRACES_EXCEEDED: max live traces exceeded: per-user traces limit (local: 9) exceeded", None),
        ("Quota exceeded for writes and limit 'writes per minute'", None),
        ("exceeded the limit of 1000 requests per second", None),
        ("throttled: exceeds the byte limit", None),
        ("too many requests, which exceeds the limit", None),
        ("exceeds the limit of this tenant", 5.0),
    ],
)
def test_a_limit_on_how_much_comes_in_a_time_does_not_make_the_request_too_large(
    details: str, retry_after_s: float | None
) -> None:
    failure = CallFailure(code="RESOURCE_EXHAUSTED", details=details, retry_after_s=retry_after_s)
    assert receipt_of_call(failure).outcome is Outcome.RETRY


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5000000 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 5000000"),
        ("RESOURCE_EXHAUSTED", "message too large"),
        ("OUT_OF_RANGE", "decoded message length too large: 5000000 bytes, the limit is 4194304 bytes"),
        ("UNKNOWN", "Payload Too Large"),
    ],
)
def test_a_limit_on_one_message_makes_the_request_too_large(code: str, details: str) -> None:
    assert receipt_of_call(CallFailure(code=code, details=details)).outcome is Outcome.TOO_LARGE


def answering_as_http(status: int) -> Script:
    """Answer a call as a proxy does that knows nothing of gRPC: with a status of HTTP, in the frames of HTTP/2."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def answer(connection: socket.socket, _: bytes) -> None:
        data, headers, settings, acknowledged, ends = 0, 1, 4, 1, 1 | 4
        connection.sendall(frame(settings, 0, 0) + frame(settings, acknowledged, 0))
        with connection.makefile("rb") as incoming:
            incoming.read(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            while (head := incoming.read(9))[3] != data:
                incoming.read(int.from_bytes(head[:3], "big"))
            # a name from HPACK's table, `:status`, with a value of its own
            connection.sendall(frame(headers, ends, 1, b"\x08\x03%d" % status))
            incoming.read()

    return answer


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (301, Outcome.RETRY),
        (400, Outcome.RETRY),
        (401, Outcome.UNAUTHORIZED),
        (403, Outcome.UNAUTHORIZED),
        (404, Outcome.RETRY),
        (408, Outcome.RETRY),
        (413, Outcome.TOO_LARGE),
        (429, Outcome.RETRY),
        (500, Outcome.UNKNOWN),
        (502, Outcome.UNKNOWN),
        (503, Outcome.RETRY),
        (504, Outcome.UNKNOWN),
        (524, Outcome.UNKNOWN),
    ],
)
def test_a_proxy_that_answers_a_call_with_a_status_of_http_means_what_it_means_there(
    status: int, outcome: Outcome
) -> None:
    with scripted_server(answering_as_http(status), read_request=False) as url:
        receipt = post(url)
    assert (receipt.outcome, f"status: {status}" in receipt.message) == (outcome, True)


@pytest.mark.parametrize("name", ["x!y", "x%y", "x'y", "x-key-bin", "X-Key-Bin"])
def test_a_header_whose_name_grpc_does_not_take_is_told_before_anything_is_sent(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a name that gRPC does not take") as caught:
        GrpcTransport("http://127.0.0.1:1", headers={"X.Key_1": "a", name: SECRET})
    assert SECRET not in str(caught.value)


def test_a_request_goes_out_as_it_is_with_the_headers_as_metadata() -> None:
    seen: list[tuple[bytes, dict[str, str]]] = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append((request, dict(context.invocation_metadata())))
        return b""

    with collector(answer) as endpoint:
        assert post(endpoint).outcome is Outcome.ACCEPTED
    ((request, metadata),) = seen
    assert request == b"\x0a\x00"
    assert metadata["authorization"] == SECRET


def test_a_partial_success_is_read() -> None:
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="no")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with collector(lambda *_: body) as endpoint:
        assert post(endpoint) == Receipt(outcome=Outcome.ACCEPTED, rejected=3, message="no")


def test_the_delay_of_retry_info_is_obeyed() -> None:
    retry = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    with collector(failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", retry)) as endpoint:
        receipt = post(endpoint)
    assert (receipt.outcome, receipt.retry_after_s) == (Outcome.RETRY, 2.5)


def test_a_request_over_the_servers_limit_is_too_large() -> None:
    def unreachable(*_: Any) -> bytes:
        raise AssertionError("the server reads no request over its limit")

    with (
        collector(unreachable) as endpoint,
        GrpcTransport(endpoint, headers={}) as transport,
    ):
        receipt = transport.post(b"\x0a" * 5_000_000)
    assert receipt.outcome is Outcome.TOO_LARGE


def test_an_answer_that_is_too_large_to_read_does_not_make_the_request_too_large() -> None:
    huge = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(error_message="x" * 5_000_000))
    with collector(lambda *_: huge.SerializeToString()) as endpoint:
        receipt = post(endpoint)
    assert receipt.outcome is Outcome.UNKNOWN
    assert "larger than max" in receipt.message


def test_a_delay_below_zero_is_none() -> None:
    retry = RetryInfo(retry_delay=Duration(seconds=-2))
    with collector(failing(grpc.StatusCode.UNAVAILABLE, "busy", retry)) as endpoint:
        assert post(endpoint).retry_after_s is None


def test_a_server_that_is_not_there_has_not_taken_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    receipt = post(f"http://127.0.0.1:{port}")
    assert receipt.outcome is Outcome.RETRY
    assert f"127.0.0.1:{port}" in receipt.message


def test_a_name_that_does_not_resolve_means_that_nothing_was_stored() -> None:
    assert post("http://no-such-host.invalid:4317").outcome is Outcome.RETRY


def test_a_connection_lost_during_the_call_leaves_its_fate_unknown() -> None:
    settings_frame = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

    def script(connection: socket.socket, _: bytes) -> None:
        # HTTP/2's preface ends the request's head for the scripted server; then the call itself comes
        connection.sendall(settings_frame)
        connection.recv(65536)

    with scripted_server(script) as endpoint:
        assert post(endpoint).outcome is Outcome.UNKNOWN


def test_no_answer_in_time_leaves_the_fate_unknown() -> None:
    over = threading.Event()

    def hang(*_: Any) -> bytes:
        over.wait(10)
        return b""

    with collector(hang) as endpoint:
        receipt = post(endpoint, timeout_s=0.2)
        over.set()
    assert receipt.outcome is Outcome.UNKNOWN
    assert receipt.message == f"{endpoint}: gRPC DEADLINE_EXCEEDED: not done within 0.2 s"


@pytest.mark.parametrize("words", ["Deadline Exceeded", "Stream removed (Deadline Exceeded)"])
def test_a_call_whose_time_is_up_is_told_in_the_same_words_wherever_grpc_noticed(words: str) -> None:
    with collector(failing(grpc.StatusCode.DEADLINE_EXCEEDED, words)) as endpoint:
        receipt = post(endpoint, timeout_s=20.0)
    assert receipt.outcome is Outcome.UNKNOWN
    assert receipt.message == f"{endpoint}: gRPC DEADLINE_EXCEEDED: not done within 20 s"


def test_a_server_s_own_words_on_a_deadline_are_kept() -> None:
    with collector(failing(grpc.StatusCode.DEADLINE_EXCEEDED, "storage: context deadline exceeded")) as endpoint:
        assert "storage: context deadline exceeded" in post(endpoint, timeout_s=20.0).message


def test_credentials_that_a_server_quotes_stay_out_of_the_message() -> None:
    with collector(failing(grpc.StatusCode.UNAUTHENTICATED, f"no such token {SECRET}")) as endpoint:
        receipt = post(endpoint)
    assert receipt.outcome is Outcome.UNAUTHORIZED
    assert "s3cr3t" not in receipt.message
    assert "no such token ***" in receipt.message


def test_credentials_that_a_server_quotes_stay_out_of_a_partial_success() -> None:
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message=f"not for {SECRET}")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with collector(lambda *_: body) as endpoint:
        assert post(endpoint).message == "not for ***"


def test_a_certificate_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such.pem")
    with pytest.raises(ConfigurationError, match=r"no-such\.pem"):
        GrpcTransport("https://localhost:1", headers={}, certificates=Certificates(authority=missing))
