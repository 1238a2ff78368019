"""Servers that cannot be reached: nothing is sent, everything waits, and what is wrong is said once."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.otlp.scripted_server import free_port, scripted_server
from tests.outcomes.backend import ACCEPT, HttpBackend
from tests.outcomes.conftest import TrialWith
from tests.outcomes.trial import FEW_SPANS, TIMEOUT_S, otel

TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
AUTHORITY = str(TLS / "authority.pem")


def server_side(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate)
    return context


def test_a_server_that_refuses_connections_gets_everything_once_it_is_there(trial_with: TrialWith) -> None:
    port = free_port()
    backend = HttpBackend(lambda _: ACCEPT)
    trial = trial_with(otel(f"http://127.0.0.1:{port}"), backend)
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
    assert "ConnectError: [Errno 111] Connection refused" in trial.condition()
    with backend.serving(port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 1
    assert trial.counter("possible_repeats") == 0
    assert len(trial.said_of_trouble()) == 1


def test_a_name_that_does_not_resolve_is_tried_again(trial_with: TrialWith) -> None:
    trial = trial_with(otel("http://no-such-host.invalid:4318"), HttpBackend(lambda _: ACCEPT))
    trial.write("one")
    for _ in range(2):
        trial.ship_until(lambda: trial.fates() == ["unknown"], "a try")
        trial.ship_until(lambda: trial.fates() == ["unsent"], "its end")
    assert "http://no-such-host.invalid:4318/v1/traces: ConnectError" in trial.condition()
    assert trial.account().in_flight_spans == FEW_SPANS
    assert trial.dead() == {}
    assert len(trial.said_of_trouble()) == 1


@pytest.mark.parametrize(
    ("certificate", "authority", "said"),
    [
        pytest.param("", AUTHORITY, "WRONG_VERSION_NUMBER", id="a server without TLS"),
        pytest.param("good.pem", "", "CERTIFICATE_VERIFY_FAILED", id="an authority that is not trusted"),
        pytest.param("other-name.pem", AUTHORITY, "IP address mismatch", id="a certificate for another name"),
        pytest.param("expired.pem", AUTHORITY, "certificate has expired", id="a certificate that has expired"),
    ],
)
def test_nothing_is_sent_over_tls_before_the_server_is_trusted(
    trial_with: TrialWith, certificate: str, authority: str, said: str
) -> None:
    backend = HttpBackend(lambda _: ACCEPT)
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    trial = trial_with(otel(url, certificate=authority), backend)
    trial.write("one")
    with backend.serving(tls=server_side(certificate) if certificate else None, port=port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
        assert said in trial.condition()
        # between two tries; at one it may be under way
        trial.ship_until(lambda: trial.fates() == ["unsent"], "the next try is waited for")
        trial.close()
    assert [request.body for request in backend.requests] == []
    assert len(trial.said_of_trouble()) == 1

    trial.sink = otel(url, certificate=AUTHORITY)
    with backend.serving(tls=server_side("good.pem"), port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0


def test_a_certificate_of_ones_own_that_the_server_misses_means_that_nothing_was_stored(trial_with: TrialWith) -> None:
    """With TLS 1.3 the server says so only after the request is on its way."""
    backend = HttpBackend(lambda _: ACCEPT)
    port = free_port()
    mutual = server_side("good.pem")
    mutual.verify_mode = ssl.CERT_REQUIRED
    mutual.load_verify_locations(AUTHORITY)
    mutual.minimum_version = ssl.TLSVersion.TLSv1_3
    trial = trial_with(otel(f"https://127.0.0.1:{port}", certificate=AUTHORITY), backend)
    trial.write("one")
    with backend.serving(tls=mutual, port=port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
        assert "CERTIFICATE_REQUIRED" in trial.condition()
        trial.ship_until(lambda: trial.fates() == ["unsent"], "the next try is waited for")
        trial.close()
    assert [request.body for request in backend.requests] == []
    with backend.serving(tls=server_side("good.pem"), port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0


def test_a_server_that_never_reads_what_it_is_sent_gets_everything_once_it_does(trial_with: TrialWith) -> None:
    port = free_port()
    backend = HttpBackend(lambda _: ACCEPT)
    trial = trial_with(otel(f"http://127.0.0.1:{port}", timeout=TIMEOUT_S), backend)
    trial.write("one", turns=1, result="x" * 3_000_000)
    with unread_server(port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
        # the system may take in all of it for a peer that it knows to be fast
        assert f"Timeout: not done within {TIMEOUT_S} s" in trial.condition()
        trial.close()
    with backend.serving(port=port):
        trial.ship()
    trial.assert_all_arrived_once()
    assert trial.dead() == {}


@contextmanager
def unread_server(port: int) -> Iterator[None]:
    """A server that takes connections and reads nothing."""
    over = threading.Event()

    def wait(*_: object) -> None:
        over.wait(10)

    with scripted_server(wait, read_request=False, buffer=4096, port=port):
        yield
        over.set()


def test_plain_http_to_a_server_that_wants_tls_gives_nothing_up(trial_with: TrialWith) -> None:
    backend = HttpBackend(lambda _: ACCEPT)
    port = free_port()
    trial = trial_with(otel(f"http://127.0.0.1:{port}"), backend)
    trial.write("one")
    with backend.serving(tls=server_side("good.pem"), port=port):
        trial.ship_until(lambda: trial.condition().startswith("backing off"), "a failure")
    assert trial.dead() == {}
    with backend.serving(port=port):
        trial.ship()
    trial.assert_all_arrived_once()
