"""Whatever a peer does, an exchange is over at its time-out."""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore
import pytest

from tests.otlp.scripted_server import (
    Script,
    dripping,
    flooding,
    hang,
    has_hung_up,
    http_answer,
    reset,
    scripted_server,
)
from tests.waiting import grace_s
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.bounded_network import BoundedNetwork
from tracebridge_otlp.http_transport import HttpTransport

TIMEOUT_S = 0.4
LARGE = b"x" * (8 << 20)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def timed_post(url: str, body: bytes = b"spans") -> tuple[Receipt, float]:
    with HttpTransport(url, headers={}, timeout_s=TIMEOUT_S) as transport:
        began = time.monotonic()
        receipt = transport.post(body)
        return receipt, time.monotonic() - began


def endless(drop: bytes) -> Iterator[bytes]:
    return itertools.repeat(drop)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(hang, id="says nothing"),
        pytest.param(dripping(b"", endless(b"H")), id="status line by the byte"),
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", endless(b"x")), id="headers by the byte"),
        pytest.param(dripping(b"", endless(b"HTTP/1.1 100 Continue\r\n\r\n")), id="100 Continue for ever"),
        pytest.param(dripping(b"HTTP/1.1 103 Early Hints\r\n\r\n", endless(b"H")), id="103 and then by the byte"),
        pytest.param(dripping(HEAD + b"Content-Length: 9999\r\n\r\n", endless(b" ")), id="body by the byte"),
        pytest.param(dripping(HEAD + b"\r\n", endless(b" ")), id="body without an end"),
        pytest.param(
            dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", endless(b"1\r\n \r\n")), id="chunks without an end"
        ),
        pytest.param(
            dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", endless(b"x")), id="chunk extension without an end"
        ),
    ],
)
def test_a_peer_that_answers_slowly_or_never_is_given_up_at_the_time_out(script: Script) -> None:
    with scripted_server(script) as url:
        receipt, took_s = timed_post(url)
    assert receipt.outcome is Outcome.UNKNOWN
    assert "ReadTimeout: not done within 0.4 s" in receipt.message
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + grace_s()


@pytest.mark.parametrize("sip", [0, 4096])
def test_a_peer_that_hardly_reads_the_request_is_given_up_at_the_time_out(sip: int) -> None:
    over = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        while not over.wait(0.02):
            connection.recv(sip)

    with scripted_server(script, read_request=False, buffer=4096) as url:
        receipt, took_s = timed_post(url, LARGE)
        over.set()
    assert receipt.outcome is Outcome.RETRY
    assert "WriteTimeout: not done within 0.4 s" in receipt.message
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + grace_s()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(hang, id="says nothing"),
        pytest.param(dripping(b"\x16\x03\x03\x40\x00", endless(b"\x02")), id="by the byte"),
    ],
)
def test_a_tls_handshake_that_never_ends_is_given_up_at_the_time_out(script: Script) -> None:
    with scripted_server(script, read_request=False) as url:
        receipt, took_s = timed_post(url.replace("http", "https"))
    assert receipt.outcome is Outcome.RETRY
    assert "ConnectTimeout: not done within 0.4 s" in receipt.message
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + grace_s()


def test_a_host_that_takes_no_connection_is_given_up_at_the_time_out() -> None:
    with full_listener() as port:
        receipt, took_s = timed_post(f"http://127.0.0.1:{port}")
    assert receipt.outcome is Outcome.RETRY
    assert "ConnectTimeout: not done within 0.4 s" in receipt.message
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + grace_s()


def test_a_name_that_is_looked_up_for_too_long_is_given_up_at_the_time_out() -> None:
    over = threading.Event()

    def resolve(*_: object) -> list[str]:
        over.wait(10)
        return []

    with HttpTransport("http://backend:4318", headers={}, timeout_s=TIMEOUT_S, resolve=resolve) as transport:
        began = time.monotonic()
        receipt = transport.post(b"spans")
        took_s = time.monotonic() - began
    over.set()
    assert receipt.outcome is Outcome.RETRY
    assert "backend was not looked up in time" in receipt.message
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + grace_s()


def test_a_huge_answer_is_not_read_to_its_end() -> None:
    piece = b"x" * (1 << 20)
    script = flooding(HEAD + b"Content-Length: 1073741824\r\n\r\n", piece, 1024)
    with scripted_server(script) as url:
        receipt, took_s = timed_post(url)
    assert receipt.outcome is Outcome.UNKNOWN
    assert took_s < TIMEOUT_S + grace_s()


def test_an_error_counts_although_the_body_that_explains_it_never_ends() -> None:
    script = dripping(b"HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\n\r\ntoo much", endless(b"!"))
    with scripted_server(script) as url:
        receipt, took_s = timed_post(url)
    assert receipt.outcome is Outcome.TOO_LARGE
    assert "too much!" in receipt.message
    assert took_s < TIMEOUT_S + grace_s()


def test_every_address_of_a_host_has_its_share_of_the_time() -> None:
    with full_listener() as full, scripted_server(lambda connection, _: connection.close()) as url:
        port = int(url.rpartition(":")[2])
        network = BoundedNetwork(lambda *_: ["127.0.0.1", "127.0.0.2"])
        # nothing listens at 127.0.0.2, and the listener at 127.0.0.1 takes no connection
        began = time.monotonic()
        with network.bounded(TIMEOUT_S), pytest.raises(httpcore.ConnectError, match="refused"):
            network.connect_tcp("backend", full)
        assert time.monotonic() - began < TIMEOUT_S + grace_s()
        network = BoundedNetwork(lambda *_: ["127.0.0.2", "127.0.0.1"])
        with network.bounded(TIMEOUT_S):
            network.connect_tcp("backend", port).close()


def test_a_name_that_is_no_name_means_that_nothing_was_stored() -> None:
    for host in ("a..b", "x" * 70, "no-such-host.invalid"):
        receipt, _ = timed_post(f"http://{host}:4318")
        assert receipt.outcome is Outcome.RETRY, receipt


def test_that_the_peer_broke_off_is_found_by_reading_and_not_used_up_by_writing_nothing() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.recv(1)
        reset(connection)

    with scripted_server(script, read_request=False) as url:
        network = BoundedNetwork()
        with network.bounded(20.0):
            stream = network.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
            stream.write(b"x")
            poll = select.poll()
            poll.register(stream.get_extra_info("socket"), select.POLLIN)
            assert poll.poll(20_000)
            stream.write(b"")
            with pytest.raises(httpcore.ReadError, match="reset"):
                stream.read(1)
            stream.close()


def test_connections_are_kept_for_the_next_request() -> None:
    connections = 0
    answer = http_answer(200, "application/x-protobuf").replace(b"Connection: close\r\n", b"")

    def script(connection: socket.socket, _: bytes) -> None:
        nonlocal connections
        connections += 1
        while not has_hung_up(connection, 10.0):
            connection.sendall(answer)

    with scripted_server(script, read_request=False) as url, HttpTransport(url, headers={}) as transport:
        for _ in range(3):
            assert transport.post(b"").outcome is Outcome.ACCEPTED
    assert connections == 1


@contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue of connections is full, so that one more is not answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        waiting = []
        try:
            while True:
                client = socket.socket()
                waiting.append(client)
                client.settimeout(0.1)
                client.connect(("127.0.0.1", port))
        except TimeoutError:
            yield port
        finally:
            for client in waiting:
                client.close()
