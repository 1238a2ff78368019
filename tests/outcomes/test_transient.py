"""Answers after which the same bytes are sent again, for ever: which they are, and what is said of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.otlp.scripted_server import answering, dripping, flooding, hang, http_answer, reset
from tests.outcomes.backend import ACCEPT, PROTOBUF, Reply, answer, in_turn
from tests.outcomes.case import Case, assert_sent_again_until_taken
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import TIMEOUT_S, TOKEN

JSON = "application/json"
LATE = f"ReadTimeout: not done within {TIMEOUT_S} s"
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def bytewise(drop: bytes) -> Iterator[bytes]:
    return itertools.repeat(drop)


def raw(data: bytes) -> Reply:
    return Reply(answering(data))


NOT_STORED = [
    Case("404", answer(404, "text/html", PAGE), False, "HTTP 404: nothing takes traces at this address"),
    Case("405", answer(405, JSON, b"{}"), False, "HTTP 405: nothing takes traces at this address"),
    Case("408", answer(408), False, "HTTP 408"),
    Case("415", answer(415, "text/plain", b"no protobuf, please"), False, "HTTP 415: no protobuf, please"),
    Case("425", answer(425), False, "HTTP 425"),
    Case("429", answer(429, JSON, b'{"message": "slow down"}'), False, "HTTP 429: slow down"),
    Case("501", answer(501), False, "HTTP 501"),
    Case("503", answer(503, "text/plain", f"busy {TOKEN}".encode()), False, "HTTP 503: busy ***"),
    Case("505", answer(505), False, "HTTP 505"),
    Case("511 captive portal", answer(511, "text/html", PAGE), False, "HTTP 511"),
    Case("521 proxy: refused", answer(521, "text/html", PAGE), False, "HTTP 521"),
    Case("523 proxy: no route", answer(523), False, "HTTP 523"),
    Case("525 proxy: TLS", answer(525), False, "HTTP 525"),
    Case("526 proxy: certificate", answer(526), False, "HTTP 526"),
    Case("301", answer(301, "", b"", "Location: https://new.example/"), False, "redirected to https://new.example/"),
    Case("302 to a login page", answer(302, "text/html", PAGE, "Location: /login"), False, "redirected to /login"),
    Case("304", answer(304), False, "redirected to nowhere"),
    Case("307", answer(307, "", b"", "Location: /v1/traces/"), False, "redirected to /v1/traces/"),
    Case("200 with a web page", answer(200, "text/html; charset=utf-8", PAGE), False, "with a web page (text/html)"),
    Case("200 with a web page as JSON", answer(200, JSON, PAGE), False, "with a web page (application/json)"),
    Case("200 with a web page as protobuf", answer(200, PROTOBUF, PAGE), False, "with a web page"),
]

PERHAPS_STORED = [
    Case("500", answer(500, JSON, b'{"message": "oops"}'), True, "HTTP 500: oops"),
    Case("502", answer(502, "text/html", PAGE), True, "HTTP 502"),
    Case("504", answer(504, "text/html", PAGE), True, "HTTP 504"),
    Case("520", answer(520), True, "HTTP 520"),
    Case("522", answer(522), True, "HTTP 522"),
    Case("524", answer(524), True, "HTTP 524"),
    Case("200 with other text", answer(200, "text/plain", b"OK"), True, "text/plain, which is no OTLP answer"),
    Case("200 with broken JSON", answer(200, JSON, b'{"partialSucc'), True, "JSON that cannot be read"),
    Case("200 with broken protobuf", answer(200, PROTOBUF, b"\xff\xff"), True, "protobuf that cannot be read"),
    Case("200 with XML", answer(207, "application/xml", b"<multistatus/>"), True, "which is no OTLP answer"),
    Case("no answer", Reply(hang), True, LATE, TIMEOUT_S),
    Case("reset", Reply(reset), True, "ReadError"),
    Case("closed without an answer", raw(b""), True, "disconnected without sending a response"),
    Case("101", raw(b"HTTP/1.1 101 Switching\r\nUpgrade: tea\r\nConnection: upgrade\r\n\r\n"), True, "_SWITCH_UPGRADE"),
    Case("garbage", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), True, "RemoteProtocolError"),
    Case("HTTP/0.9", raw(PAGE), True, "RemoteProtocolError"),
    Case("cut head", raw(HEAD), True, "RemoteProtocolError"),
    Case("cut body", raw(http_answer(200, JSON, b"{}")[:-1]), True, "RemoteProtocolError"),
    Case("body that is longer than it says", raw(HEAD + b"Content-Length: 1\r\n\r\n{}"), True, "cannot be read"),
    Case("length that is none", raw(HEAD + b"Content-Length: many\r\n\r\n{}"), True, "RemoteProtocolError"),
    Case("cut chunk", raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{}"), True, "RemoteProtocolError"),
    Case("head by the byte", Reply(dripping(HEAD + b"X: ", bytewise(b"x"))), True, LATE, TIMEOUT_S),
    Case("body by the byte", Reply(dripping(HEAD + b"\r\n", bytewise(b" "))), True, LATE, TIMEOUT_S),
    Case(
        "chunks without an end",
        Reply(dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", bytewise(b"1\r\n \r\n"))),
        True,
        LATE,
        TIMEOUT_S,
    ),
    Case(
        "100 for ever",
        Reply(dripping(b"", bytewise(b"HTTP/1.1 100 Continue\r\n\r\n"))),
        True,
        LATE,
        TIMEOUT_S,
    ),
    Case(
        "an answer of 1 GB",
        Reply(flooding(HEAD + b"Content-Length: 1073741824\r\n\r\n", b" " * 1_048_576, 1024)),
        True,
        "more than 1048576 bytes",
    ),
]


@pytest.mark.parametrize("case", [*NOT_STORED, *PERHAPS_STORED], ids=lambda case: case.name)
def test_the_same_bytes_are_sent_again_until_they_are_taken(http_trial: HttpTrial, case: Case) -> None:
    trial, backend = http_trial(in_turn([case.reply, case.reply]), timeout=case.timeout)
    assert_sent_again_until_taken(trial, backend, case)


def test_what_came_meanwhile_is_sent_once_the_backend_is_back(http_trial: HttpTrial) -> None:
    trial, backend = http_trial(lambda _: answer(503))
    trial.write("before")
    trial.ship_until(lambda: len(backend.requests) > 2, "tries")
    trial.write("meanwhile")
    trial.ship_until(lambda: len(backend.requests) > 5, "more tries")
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()


def test_another_shipper_goes_on_where_one_stopped_in_trouble(http_trial: HttpTrial) -> None:
    trial, backend = http_trial(lambda _: answer(503))
    trial.write("one")
    trial.ship_until(lambda: len(backend.requests) > 1 and trial.fates() == ["unsent"], "an answer")
    trial.close()
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0
