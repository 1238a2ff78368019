from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.answer import MAX_BODY_BYTES, Answer, SuccessReader, json_success, otlp_success, receipt_of

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
        (200, JSON, b"<!DOCTYPE html><html>Please log in</html>", Outcome.RETRY),
        (200, PROTOBUF, b"\xef\xbb\xbf\r\n<HTML><head>", Outcome.RETRY),
        (200, "", b"<!-- portal --><html>", Outcome.RETRY),
        (200, "text/plain", b"<htmlish", Outcome.UNKNOWN),
        (200, JSON, b'\xef\xbb\xbf{"partialSuccess": {}}', Outcome.ACCEPTED),
        (200, JSON, b"[" * 100_000, Outcome.UNKNOWN),
        (200, JSON, b'{"partialSuccess": {"rejectedSpans": 1e999}}', Outcome.UNKNOWN),
        (200, JSON, b" " * (MAX_BODY_BYTES + 1), Outcome.UNKNOWN),
        (207, JSON, b'{"successes": [], "errors": []}', Outcome.ACCEPTED),
        (207, "application/xml", b"<multistatus/>", Outcome.UNKNOWN),
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
        (503, "text/plain", b"Key with size 90133 exceeded 65000 limit. Key: 00000000  83 61", Outcome.UNKNOWN),
        (504, "", b"", Outcome.UNKNOWN),
        (520, "", b"", Outcome.UNKNOWN),
        (521, "", b"", Outcome.RETRY),
        (522, "", b"", Outcome.UNKNOWN),
        (523, "", b"", Outcome.RETRY),
        (524, "", b"", Outcome.UNKNOWN),
        (525, "", b"", Outcome.RETRY),
        (526, "", b"", Outcome.RETRY),
        (599, "", b"", Outcome.UNKNOWN),
        (101, "", b"", Outcome.RETRY),
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
        (JSON, b'{"partial_success": {"rejected_spans": 2, "error_message": "two were bad"}}'),
    ],
)
def test_a_partial_success_tells_how_many_were_rejected_and_why(media_type: str, body: bytes) -> None:
    assert receipt(200, media_type, body) == Receipt(outcome=Outcome.ACCEPTED, rejected=2, message="two were bad")


def test_a_partial_success_that_rejects_nothing_is_a_success_with_a_warning() -> None:
    assert receipt(200, PROTOBUF, WARNING) == Receipt(outcome=Outcome.ACCEPTED, message="slow down a little")


@pytest.mark.parametrize("count", [b"-3", b'"-3"', b"null", b"0"])
def test_a_count_that_is_no_count_rejects_nothing(count: bytes) -> None:
    body = b'{"partialSuccess": {"rejectedSpans": %s, "errorMessage": "hm"}}' % count
    assert receipt(200, JSON, body) == Receipt(outcome=Outcome.ACCEPTED, message="hm")


@pytest.mark.parametrize("status", [200, 207])
def test_a_batch_answer_tells_how_many_of_its_items_were_refused_and_why_the_first(status: int) -> None:
    errors = [item(400, "no trace id"), item(400, "no start")]
    found = receipt(status, JSON, batch_answer([item(201)], errors), json_success)
    assert found == Receipt(outcome=Outcome.ACCEPTED, rejected=2, message="no trace id")


@pytest.mark.parametrize(
    ("status", "outcome", "rejected"),
    [
        (400, Outcome.ACCEPTED, 2),
        (413, Outcome.ACCEPTED, 2),
        (401, Outcome.UNAUTHORIZED, 0),
        (429, Outcome.RETRY, 0),
        (500, Outcome.UNKNOWN, 0),
    ],
)
def test_a_batch_answer_that_refuses_all_for_a_reason_of_its_own_is_that_refusal(
    status: int, outcome: Outcome, rejected: int
) -> None:
    found = receipt(207, JSON, batch_answer([], [item(status, "no"), item(status, "no")]), json_success)
    assert (found.outcome, found.rejected) == (outcome, rejected)


@pytest.mark.parametrize("error", [3, "no", None, {}, {"status": "400"}, {"message": {"message": 7}}])
def test_a_batch_answer_with_errors_of_another_form_is_read_too(error: object) -> None:
    found = receipt(207, JSON, batch_answer([], [error]), json_success)
    assert (found.outcome, found.rejected) == (Outcome.ACCEPTED, 1)


def item(status: int, message: str = "") -> dict[str, object]:
    return {"id": "1", "status": status, "message": message}


def batch_answer(successes: Sequence[object], errors: Sequence[object]) -> bytes:
    return json.dumps({"successes": successes, "errors": errors}).encode()


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
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 -0000"}, 60.0),
        ({"retry-after": "Fri, 31 Dec 99999999999999 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 +9999"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 GMT"}, 0.0),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert (
        receipt_of(Answer(status=503, headers=headers), now_s=NOW_S, read_success=otlp_success).retry_after_s == seconds
    )


def test_retry_after_counts_with_whatever_was_not_taken() -> None:
    assert receipt(200, "text/html", b"<html>", retry_after="7").retry_after_s == 7.0
    assert receipt(413, retry_after="7").retry_after_s == 7.0
    assert receipt(200, PROTOBUF, retry_after="7").retry_after_s is None


def test_the_message_says_what_the_backend_said_in_one_line() -> None:
    message = receipt(400, JSON, b'{"message": "bad\\nspan", "error": "LangfuseError"}').message
    assert message == "HTTP 400: bad span: LangfuseError"


def test_the_message_of_a_redirect_names_its_target() -> None:
    message = receipt(302, location="https://login.example/").message
    assert "https://login.example/" in message
    assert "endpoint" in message


def test_a_web_page_is_not_quoted_and_no_message_is_long() -> None:
    assert receipt(502, "text/html", b"<h1>Bad Gateway</h1>").message == "HTTP 502"
    assert receipt(502, "text/plain", b"<html>Bad Gateway</html>").message == "HTTP 502"
    assert receipt(400, JSON, b"[" * 100_000).message.startswith("HTTP 400: [[[[")
    assert len(receipt(400, "text/plain", b"x" * 10_000).message) <= 300


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_that_is_a_web_page_is_not_the_spans_fault(status: int) -> None:
    page = b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"
    answer = Answer(status=status, headers={"content-type": "text/html"}, body=page)
    receipt = receipt_of(answer, now_s=0.0, read_success=otlp_success)
    assert receipt.outcome is Outcome.RETRY
    assert "check the address" in receipt.message
