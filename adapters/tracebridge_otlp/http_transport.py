"""OTLP over HTTP: posts one request and tells what became of it."""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, Self

import httpx
import msgspec

from tracebridge.errors import ConfigurationError
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.answer import MAX_BODY_BYTES, Answer, SuccessReader, otlp_success, receipt_of, shortened
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials

Compression = Literal["gzip", "none"]

_GZIP_LEVEL: Final = 1
"""On text that does not repeat itself level 6 takes three times as long (64 µs for 2 kB, 20 µs at level 1) and saves a
fifth of the bytes."""


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files for TLS; empty where the platform's own are meant."""

    authority: str = ""
    """Certificates of the authorities to trust."""
    client: str = ""
    """The client's certificate, for mutual TLS."""
    client_key: str = ""
    """The client's key, where it is not in the file of its certificate."""


class HttpTransport:
    """Posts OTLP requests to one address. Safe to use from several threads at once."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float = 10.0,
        compression: Compression = "none",
        certificates: Certificates = Certificates(),  # noqa: B008  # frozen
        read_success: SuccessReader = otlp_success,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a transport; nothing is sent yet.

        Args:
            url: Where to post to, with the path.
            headers: Sent with every request. Their values are taken for secrets.
            timeout_s: How long each of connecting, sending and the whole of answering may take.
            compression: How the request's body is compressed.
            certificates: Certificates for TLS.
            read_success: What a 2xx answer means.
            clock: Seconds since the epoch, for a `Retry-After` that is a date.

        Raises:
            ConfigurationError: a certificate cannot be loaded, or a header cannot be sent.
        """
        self._url = url
        self._place = without_credentials(url)
        self._redact = Redactor(headers.values(), url)
        self._timeout_s = timeout_s
        self._compression = compression
        self._read_success = read_success
        self._clock = clock
        self._client = httpx.Client(
            headers={
                "accept-encoding": "identity",
                "user-agent": "tracebridge",
                **header_fields(headers),
                "content-type": "application/x-protobuf",
                **({"content-encoding": "gzip"} if compression == "gzip" else {}),
            },
            timeout=timeout_s,
            follow_redirects=False,
            verify=tls_context(certificates),
            limits=httpx.Limits(max_keepalive_connections=8, keepalive_expiry=4.0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(self, body: bytes) -> Receipt:
        """Send one request and tell what became of it; never raises, never retries, follows no redirect."""
        content = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0) if self._compression == "gzip" else body
        try:
            answer = self._exchange(content)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            receipt = receipt_of_failure(error, self._place)
        else:
            receipt = receipt_of(answer, now_s=self._clock(), read_success=self._read_success)
        return msgspec.structs.replace(receipt, message=self._redact(receipt.message))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _exchange(self, content: bytes) -> Answer:
        with self._client.stream("POST", self._url, content=content) as response:
            deadline = time.monotonic() + self._timeout_s
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) >= MAX_BODY_BYTES:
                    break
                if time.monotonic() > deadline:
                    # the client's own time-out starts anew with every byte that comes
                    raise httpx.ReadTimeout(f"the answer was not complete after {self._timeout_s:g} s")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(status=response.status_code, headers=headers, body=bytes(body[:MAX_BODY_BYTES]))


def receipt_of_failure(error: Exception, place: str) -> Receipt:
    """Tell what a failed exchange means: whether the whole request may have reached the server."""
    words = shortened(f"{place}: {type(error).__name__}: {error}" if str(error) else f"{place}: {type(error).__name__}")
    return Receipt(outcome=Outcome.RETRY if isinstance(error, _NOT_SENT) else Outcome.UNKNOWN, message=words)


_NOT_SENT = (
    # no connection: refused, no such name, TLS failure, no proxy, or no free connection in time
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    # the request could not be sent to its end, and no server acts on a body that stops short of its length
    httpx.WriteError,
    httpx.WriteTimeout,
)


def tls_context(certificates: Certificates) -> ssl.SSLContext:
    """Make the TLS settings that go with the certificates.

    Raises:
        ConfigurationError: a certificate cannot be loaded.
    """
    try:
        context = ssl.create_default_context(cafile=certificates.authority or None)
        if certificates.client:
            context.load_cert_chain(certificates.client, certificates.client_key or None)
    except (OSError, ssl.SSLError) as error:
        paths = ", ".join(filter(None, (certificates.authority, certificates.client, certificates.client_key)))
        raise ConfigurationError(f"TLS certificates cannot be loaded from {paths}: {error}") from None
    return context
