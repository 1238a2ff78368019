from __future__ import annotations

import gzip
import socket
import ssl
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.otlp.scripted_server import answering, flooding, free_port, http_answer, reset, scripted_server
from tracebridge.errors import ConfigurationError
from tracebridge.sink import Outcome
from tracebridge_otlp.http_transport import Certificates, Compression, HttpTransport, tls_context

SECRET = "Basic c2VjcmV0OnNlY3JldA=="
OK = http_answer(200, "application/x-protobuf")


def transport(url: str, timeout_s: float = 5.0, compression: Compression = "none") -> HttpTransport:
    headers = {"Authorization": SECRET}
    return HttpTransport(url, headers=headers, timeout_s=timeout_s, compression=compression)


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


def test_a_header_that_is_there_twice_is_read_once() -> None:
    twice = [f"{name}: {value}" for name, value in (("Retry-After", "7"), ("Content-Type", "application/json"))] * 2
    with scripted_server(answering(http_answer(503, "", b"{}", *twice))) as url, transport(url) as http:
        assert http.post(b"spans").retry_after_s == 7
    with scripted_server(answering(http_answer(200, "", b"{}", *twice))) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.ACCEPTED


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
    with scripted_server(reset) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


def test_a_connection_closed_without_an_answer_leaves_the_fate_unknown() -> None:
    with scripted_server(lambda connection, _: connection.close()) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", OK[:20], http_answer(200, "application/json", b"{}")[:-1]])
def test_a_garbled_or_cut_answer_leaves_the_fate_unknown(answer: bytes) -> None:
    with scripted_server(answering(answer)) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.UNKNOWN


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    flood = flooding(b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\n", b"x" * 65536)
    with scripted_server(flood) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.REJECTED


def test_an_error_counts_although_its_body_breaks_off() -> None:
    with (
        scripted_server(answering(http_answer(401, "text/plain", b"who are you?")[:-3])) as url,
        transport(url) as http,
    ):
        receipt = http.post(b"spans")
    assert (receipt.outcome, receipt.message) == (Outcome.UNAUTHORIZED, f"{url}: HTTP 401: who are y")


@pytest.mark.parametrize(
    ("status", "outcome"), [(407, Outcome.UNAUTHORIZED), (502, Outcome.RETRY), (403, Outcome.RETRY)]
)
def test_a_proxy_of_the_environment_is_asked_and_its_refusal_means_that_nothing_was_stored(
    status: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(http_answer(status))

    with scripted_server(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("//", "//user:pass@"))
        monkeypatch.setenv("NO_PROXY", "elsewhere.example")
        with transport("https://backend.invalid:4318") as http:
            receipt = http.post(b"spans")
    assert receipt.outcome is outcome
    assert requests[0].startswith(b"CONNECT backend.invalid:4318 ")
    assert b"proxy-authorization: basic dxnlcjpwyxnz" in requests[0].lower()


def test_a_host_that_the_environment_exempts_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "elsewhere.example, 127.0.0.1")
    with scripted_server(answering(OK)) as url, transport(url) as http:
        assert http.post(b"spans").outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(("exempted", "is_asked"), [("localhost,::1", False), ("[::1]", False), ("127.0.0.1", True)])
def test_an_ipv6_address_is_exempted_with_brackets_or_without(
    monkeypatch: pytest.MonkeyPatch, exempted: str, is_asked: bool
) -> None:
    asked: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(OK)

    with scripted_server(script) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", exempted)
        with transport(f"http://[::1]:{free_port()}") as http:
            http.post(b"spans")
    assert bool(asked) is is_asked


@pytest.mark.skipif(find_spec("socksio") is not None, reason="it can be used here")
def test_a_socks_proxy_without_what_it_takes_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pass@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ConfigurationError, match=r"socks5://127\.0\.0\.1:9.*pip install"):
        HttpTransport("http://collector.example/v1/traces", headers={})


def test_a_proxy_that_cannot_be_used_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ConfigurationError, match="proxy"):
        transport("https://backend.example")


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
    assert receipt.message == f"{url}: HTTP 401: unknown key ***"


def test_a_certificate_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such.pem")
    with pytest.raises(ConfigurationError, match=r"no-such\.pem"):
        HttpTransport("https://localhost", headers={}, certificates=Certificates(authority=missing))


def test_what_the_platform_trusts_is_loaded_once_and_again_when_its_place_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    platform = tls_context(Certificates())
    assert tls_context(Certificates()) is platform
    nobody = tmp_path / "nobody.pem"
    nobody.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(nobody))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context(Certificates()).get_ca_certs() == []
    assert platform.verify_mode is ssl.CERT_REQUIRED
