"""Whether a server can be reached, step by step, as `tracebridge doctor` tells it: name, connection, TLS, clock."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from tracebridge.diagnosis import Check
from tracebridge.threads import BackgroundThread
from tracebridge_otlp.answer import Answer, error_words, http_date, message_in, shortened
from tracebridge_otlp.proxy import proxy_address
from tracebridge_otlp.secrecy import Redactor, without_credentials

CLOCK_TOLERANCE_S: Final = 30.0
"""A clock that is further off than this is told."""
_SOON_DAYS: Final = 14
_DAY_S: Final = 86_400
_DEFAULT_PORTS: Final = {"https": 443}


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A question and what came of it."""

    answer: Answer | None
    """None when there was no answer."""
    trouble: str = ""
    """Why there was none, without credentials."""
    sent_s: float
    """When it was sent, in seconds since the epoch, by this machine's clock."""
    came_s: float
    """When the answer's head had come."""


def reach(url: str, context: ssl.SSLContext, timeout_s: float, *, authority: str, prefix: str = "") -> Iterator[Check]:
    """Yield what can be told of the way to a server: up to the first thing that fails.

    `authority` is the setting that names who signed the server's certificate; `prefix` goes before the names of the
    checks, where there are several servers.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
    ends_at = time.monotonic() + timeout_s
    if proxy_address(url):
        words = "a proxy that the environment names is asked instead of the server, so the way is not looked at"
        yield Check(name=f"{prefix}connection", status="skip", found=words)
        return
    try:
        addresses = _addresses(host, port, timeout_s)
    except (OSError, UnicodeError, TimeoutError) as error:
        yield Check(
            name=f"{prefix}address",
            status="fail",
            found=f"the name {host!r} cannot be looked up: {error_words(error)}",
            remedy="check the host's name, and this machine's DNS",
        )
        return
    yield Check(name=f"{prefix}address", status="ok", found=f"{host} is {', '.join(addresses)}")
    began_s = time.monotonic()
    try:
        connection = socket.create_connection((host, port), _left(ends_at))
    except OSError as error:
        yield Check(
            name=f"{prefix}connection",
            status="fail",
            found=f"{host}:{port} cannot be connected to: {error_words(error)}",
            remedy="check that the server runs, its port, and the firewalls in between",
        )
        return
    with connection:
        took_ms = (time.monotonic() - began_s) * 1_000
        yield Check(name=f"{prefix}connection", status="ok", found=f"{host}:{port} answers after {took_ms:.0f} ms")
        if parts.scheme == "https":
            connection.settimeout(_left(ends_at))
            yield _tls(connection, host, context, authority, f"{prefix}tls")
        else:
            yield Check(name=f"{prefix}tls", status="skip", found="not asked for: the address begins with http://")


def ask(client: httpx.Client, url: str, redact: Redactor, **request: object) -> Exchange:
    """Ask with GET, following no redirect; never raises."""
    sent_s = time.time()
    try:
        response = client.get(url, **request)  # type: ignore[arg-type]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        trouble = redact(shortened(f"{without_credentials(url)}: {error_words(error)}"))
        return Exchange(answer=None, trouble=trouble, sent_s=sent_s, came_s=time.time())
    headers = {name.lower(): value for name, value in response.headers.items()}
    answer = Answer(status=response.status_code, headers=headers, body=response.content)
    return Exchange(answer=answer, sent_s=sent_s, came_s=sent_s + response.elapsed.total_seconds())


def said(answer: Answer, redact: Redactor) -> str:
    """What a server answered, in short and without credentials."""
    words = "a web page" if answer.is_web_page else shortened(message_in(answer))
    return redact(f"HTTP {answer.status}" + (f": {words}" if words else ""))


def silence(exchange: Exchange, url: str, timeout_s: float) -> tuple[str, str]:
    """What it means that a server that was connected to gave no answer over HTTP, and what to do."""
    parts = urlsplit(url)
    if parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80, timeout_s):
        return "it speaks TLS and no plain HTTP", "write https:// in the address"
    return exchange.trouble, "check that the address is that of the server, and not of something else"


def speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    """Whether a server answers TLS, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def clock_check(exchange: Exchange, name: str = "clock") -> Check:
    """Compare this machine's clock with the server's, as its answer's `Date` tells it."""
    date = None if exchange.answer is None else http_date(exchange.answer.headers.get("date", ""))
    if date is None:
        return Check(name=name, status="skip", found="the server does not tell its time")
    # the server's time is cut to whole seconds, and was told at some moment of the exchange
    precision_s = 0.5 + (exchange.came_s - exchange.sent_s) / 2
    ahead_s = (exchange.sent_s + exchange.came_s) / 2 - (date.timestamp() + 0.5)
    told = f"(±{precision_s:.1f} s, by the Date of its answer)"
    if abs(ahead_s) <= CLOCK_TOLERANCE_S + precision_s:
        return Check(name=name, status="ok", found=f"this machine's clock is the server's up to {precision_s:.1f} s")
    way = "ahead of" if ahead_s > 0 else "behind"
    return Check(
        name=name,
        status="warn",
        found=f"this machine's clock is {abs(ahead_s):,.0f} s {way} the server's {told}",
        remedy="set the clock of the one that is wrong, by NTP: a span stands at its recorder's time",
    )


def _tls(connection: socket.socket, host: str, context: ssl.SSLContext, authority: str, name: str) -> Check:
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            certificate = secured.getpeercert() or {}
            version = secured.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        return Check(
            name=name,
            status="fail",
            found=f"the server's certificate is not trusted: {error.verify_message}",
            remedy=f"name the authority that signed it in `{authority}`, or give the server a certificate for this "
            "name that has not expired",
        )
    except OSError as error:
        return Check(
            name=name,
            status="fail",
            found=f"TLS fails: {error_words(error)}",
            remedy="if the server speaks plain HTTP, write http:// in the address; else check its port and its TLS",
        )
    expires = str(certificate.get("notAfter", ""))
    left_s = ssl.cert_time_to_seconds(expires) - time.time() if expires else float("inf")
    if left_s < _SOON_DAYS * _DAY_S:
        return Check(
            name=name,
            status="warn",
            found=f"{version}; the server's certificate expires in {left_s / _DAY_S:.0f} days, at {expires}",
            remedy="renew it",
        )
    return Check(name=name, status="ok", found=f"{version}; the certificate is trusted")


def _addresses(host: str, port: int, timeout_s: float) -> list[str]:
    """The addresses of a host. Looking up a name has no time-out of its own, so it is waited for here."""
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(address[0]) for *_, address in found)))
        except Exception as error:
            answers.put(error)

    BackgroundThread(target=look_up, name="tracebridge-resolve").start()
    try:
        answer = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _left(ends_at: float) -> float:
    return max(ends_at - time.monotonic(), 0.1)
