from __future__ import annotations

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.answer import Answer, SuccessReader, json_success, otlp_success, receipt_of

NOW_S = 1_800_000_000.0
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="two were bad")
).SerializeToString()
WARNING = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(error_message="slow down a little")
).SerializeToString()


def receipt(
    status: int,
    media_type: str = "",
    body: bytes = b"",
    read_success: SuccessReader = otlp_success,
    **headers: str,
) -> Receipt:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer(status=status, headers={"content-type": media_type, **named}, body=body)
    return receipt_of(answer, now_s=NOW_S, read_success=read_success)


@pytest.mark.parametrize(
    ("status", "media_type", "body", "outcome"),
    [
        (200, PROTOBUF, b"", Outcome.ACCEPTED),
        (200, "application/protobuf", b"", Outcome.ACCEPTED),
        (202, "", b"", Outcome.ACCEPTED),
        (204, "", b"", Outcome.ACCEPTED),
        (200, JSON, b"{}", Outcome.ACCEPTED),
        (200, JSON, b"", Outcome.ACCEPTED),
        (200, "application/json; charset=utf-8", b'{"partialSuccess": {}}', Outcome.ACCEPTED),
        (200, JSON, b'{"partialSuccess": null}', Outcome.ACCEPTED),
        (200, JSON, b'{"partialSu', Outcome.UNKNOWN),
        (200, JSON, b'{"partialSuccess": {"rejectedSpans": "many"}}', Outcome.UNKNOWN),
        (200, PROTOBUF, b"\xff\xff\xff", Outcome.UNKNOWN),
        (200, "text/plain", b"OK", Outcome.UNKNOWN),
        (200, "text/html; charset=utf-8", b"<html>Please log in</html>", Outcome.RETRY),
        (200, "text/html", b"", Outcome.RETRY),
        (301, "", b"", Outcome.RETRY),
        (302, "text/html", b"<a href=/login>", Outcome.RETRY),
        (307, "", b"", Outcome.RETRY),
        (304, "", b"", Outcome.RETRY),
        (400, JSON, b'{"error": "Failed to parse"}', Outcome.REJECTED),
        (400, "text/plain", b"http: request body too large", Outcome.TOO_LARGE),
        (400, JSON, b'{"message": "Payload exceeds the maximum size of 5 MB"}', Outcome.TOO_LARGE),
        (
            400,
            PROTOBUF,
            Status(code=3, message="message larger than max").SerializeToString(),
            Outcome.TOO_LARGE,
        ),
        (400, PROTOBUF, Status(code=3, message="bad span id").SerializeToString(), Outcome.REJECTED),
        (401, JSON, b'{"message": "Invalid credentials"}', Outcome.UNAUTHORIZED),
        (403, "", b"", Outcome.UNAUTHORIZED),
        (407, "", b"", Outcome.UNAUTHORIZED),
        (404, "text/html", b"<h1>Not Found</h1>", Outcome.RETRY),
        (405, "", b"", Outcome.RETRY),
        (408, "", b"", Outcome.RETRY),
        (413, "", b"", Outcome.TOO_LARGE),
        (415, "", b"", Outcome.RETRY),
        (422, "", b"", Outcome.REJECTED),
        (429, "", b"", Outcome.RETRY),
        (500, "", b"", Outcome.UNKNOWN),
        (501, "", b"", Outcome.RETRY),
        (502, "text/html", b"<h1>Bad Gateway</h1>", Outcome.UNKNOWN),
        (503, "", b"", Outcome.RETRY),
        (504, "", b"", Outcome.UNKNOWN),
        (520, "", b"", Outcome.UNKNOWN),
    ],
)
def test_every_answer_means_one_outcome(status: int, media_type: str, body: bytes, outcome: Outcome) -> None:
    assert receipt(status, media_type, body).outcome is outcome


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (PROTOBUF, PARTIAL),
        (JSON, b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "two were bad"}}'),
        (JSON, b'{"partialSuccess": {"rejectedSpans": 2, "errorMessage": "two were bad"}}'),
    ],
)
def test_a_partial_success_tells_how_many_were_rejected_and_why(media_type: str, body: bytes) -> None:
    assert receipt(200, media_type, body) == Receipt(outcome=Outcome.ACCEPTED, rejected=2, message="two were bad")


def test_a_partial_success_that_rejects_nothing_is_a_success_with_a_warning() -> None:
    assert receipt(200, PROTOBUF, WARNING) == Receipt(outcome=Outcome.ACCEPTED, message="slow down a little")


def test_a_backend_that_answers_in_json_of_its_own_is_believed_only_where_that_is_expected() -> None:
    job = b'{"name": "otel-ingestion-job", "data": {"id": "1"}}'
    assert receipt(200, JSON, job, json_success).outcome is Outcome.ACCEPTED
    assert receipt(200, "text/html", b"<html>", json_success).outcome is Outcome.RETRY
    assert receipt(200, PROTOBUF, b"", json_success).outcome is Outcome.UNKNOWN
    assert receipt(200, JSON, b'{"name": "otel-inge', json_success).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        (
            {"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT", "date": "Fri, 15 Jan 2027 08:00:55 GMT"},
            5.0,
        ),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT", "date": "yesterday"}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert (
        receipt_of(Answer(status=503, headers=headers), now_s=NOW_S, read_success=otlp_success).retry_after_s == seconds
    )


def test_the_message_says_what_the_backend_said_in_one_line() -> None:
    message = receipt(400, JSON, b'{"message": "bad\\nspan", "error": "LangfuseError"}').message
    assert message == "HTTP 400: bad span: LangfuseError"


def test_the_message_of_a_redirect_names_its_target() -> None:
    message = receipt(302, location="https://login.example/").message
    assert "https://login.example/" in message
    assert "endpoint" in message


def test_a_web_page_is_not_quoted_and_no_message_is_long() -> None:
    assert receipt(502, "text/html", b"<h1>Bad Gateway</h1>").message == "HTTP 502"
    assert len(receipt(400, "text/plain", b"x" * 10_000).message) <= 300
