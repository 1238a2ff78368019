from __future__ import annotations

import gzip
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.otlp.scripted_server import answering, http_answer, scripted_server
from tracebridge.errors import ConfigurationError
from tracebridge.sink import Outcome
from tracebridge_otlp.http_transport import Certificates, Compression, HttpTransport

SECRET = "Basic c2VjcmV0OnNlY3JldA=="
OK = http_answer(200, "application/x-protobuf")


def transport(url: str, timeout_s: float = 5.0, compression: Compression = "none") -> HttpTransport:
    headers = {"Authorization": SECRET}
    return HttpTransport(url, headers=headers, timeout_s=timeout_s, compression=compression)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_request_is_posted_as_protobuf_with_the_headers_of_the_user() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(OK)

    with scripted_server(script) as url, transport(url + "/v1/traces") as http:
        assert http.post(b"spans").outcome is Outcome.ACCEPTED
    head, _, body = requests[0].partition(b"\r\n\r\n")
    lines = [line.lower() for line in head.split(b"\r\n")]
    assert lines[0] == b"post /v1/traces http/1.1"
    assert b"content-type: application/x-protobuf" in lines
    assert b"authorization: " + SECRET.lower().encode() in lines
    assert not any(line.startswith(b"content-encoding") for line in lines)
    assert body == b"spans"


def test_gzip_compresses_the_same_request_to_the_same_bytes() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(OK)

    with scripted_server(script) as url, transport(url, compression="gzip") as http:
        for _ in range(2):
            http.post(b"spans")
    bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
    assert b"content-encoding: gzip" in requests[0].lower()
    assert gzip.decompress(bodies[0]) == b"spans"
    assert bodies[0] == bodies[1]


def test_a_refused_connection_means_that_nothing_was_stored() -> None:
    with transport(f"http://127.0.0.1:{free_port()}") as http:
        receipt = http.post(b"spans")
    assert receipt.outcome is Outcome.RETRY
    assert "ConnectError" in receipt.message


def test_a_name_that_does_not_resolve_means_that_nothing_was_stored() -> None:
    with transport("http://no-such-host.invalid:4318") as http:
        assert http.post(b"spans").outcome is Outcome.RETRY


def test_a_tls_failure_means_that_nothing_was_stored() -> None:
    plain = answering(http_answer(400, "text/plain", b"no TLS here"))
    with scripted_server(plain, read_request=False) as url, transport(url.replace("http", "https")) as http:
        receipt = http.post(b"spans")
    assert receipt.outcome is Outcome.RETRY
    assert "SSL" in receipt.message


def test_a_reset_after_the_request_leaves_its_fate_unknown() -> None:
    with scripted_server(lambda connection, _: reset(connection)) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


def test_a_connection_closed_without_an_answer_leaves_the_fate_unknown() -> None:
    with scripted_server(lambda connection, _: connection.close()) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", OK[:20], http_answer(200, "application/json", b"{}")[:-1]])
def test_a_garbled_or_cut_answer_leaves_the_fate_unknown(answer: bytes) -> None:
    with scripted_server(answering(answer)) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


def test_no_answer_in_time_leaves_the_fate_unknown() -> None:
    over = threading.Event()

    def hang(*_: object) -> None:
        over.wait(10)

    with scripted_server(hang) as url, transport(url, timeout_s=0.2) as http:
        receipt = http.post(b"spans")
        over.set()
    assert receipt.outcome is Outcome.UNKNOWN
    assert "ReadTimeout" in receipt.message


def test_an_answer_that_drips_in_is_given_up_at_the_time_out() -> None:
    over = threading.Event()

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        while not over.wait(0.02):
            connection.sendall(b" ")

    with scripted_server(drip) as url, transport(url, timeout_s=0.3) as http:
        receipt = http.post(b"spans")
        over.set()
    assert receipt.outcome is Outcome.UNKNOWN


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    over = threading.Event()

    def flood(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"x" * 65536)

    with scripted_server(flood) as url, transport(url) as http:
        receipt = http.post(b"spans")
        over.set()
    assert receipt.outcome is Outcome.REJECTED


def test_a_redirect_is_not_followed() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(http_answer(307, "", b"", "Location: /elsewhere"))

    with scripted_server(script) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.RETRY
    assert len(requests) == 1


def test_retry_after_of_a_busy_server_is_told() -> None:
    answer = http_answer(503, "", b"", "Retry-After: 7")
    with scripted_server(answering(answer)) as url, transport(url) as http:
        receipt = http.post(b"spans")
    assert (receipt.outcome, receipt.retry_after_s) == (Outcome.RETRY, 7.0)


def test_credentials_that_a_server_quotes_stay_out_of_the_message() -> None:
    answer = http_answer(401, "text/plain", f"unknown key {SECRET}".encode())
    with scripted_server(answering(answer)) as url, transport(url) as http:
        receipt = http.post(b"spans")
    assert receipt.outcome is Outcome.UNAUTHORIZED
    assert receipt.message == "HTTP 401: unknown key ***"


def test_a_certificate_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such.pem")
    with pytest.raises(ConfigurationError, match=r"no-such\.pem"):
        HttpTransport("https://localhost", headers={}, certificates=Certificates(authority=missing))
