"""OTLP over HTTP: posts one request and tells what became of it."""

from __future__ import annotations

import gzip
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal, Self

import httpcore
import httpx
import msgspec

from tracebridge.errors import ConfigurationError
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.answer import MAX_BODY_BYTES, Answer, SuccessReader, otlp_success, receipt_of, shortened
from tracebridge_otlp.body import pieces_of
from tracebridge_otlp.bounded_network import BoundedNetwork, Resolver
from tracebridge_otlp.proxy import proxy_for
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials
from tracebridge_otlp.untraced import untraced

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
        resolve: Resolver | None = None,
    ) -> None:
        """Prepare a transport; nothing is sent yet.

        Args:
            url: Where to post to, with the path.
            headers: Sent with every request. Their values are taken for secrets.
            timeout_s: How long the whole exchange may take, from looking up the name to the answer's last byte.
            compression: How the request's body is compressed.
            certificates: Certificates for TLS.
            read_success: What a 2xx answer means.
            clock: Seconds since the epoch, for a `Retry-After` that is a date.
            resolve: How names are looked up, if not as the system does.

        Raises:
            ConfigurationError: a certificate cannot be loaded, or a header or the proxy's address cannot be used.
        """
        self._url = url
        self._place = without_credentials(url)
        self._redact = Redactor(headers.values(), url)
        self._timeout_s = timeout_s
        self._compression = compression
        self._read_success = read_success
        self._clock = clock
        self._network = BoundedNetwork(resolve)
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
            transport=_Connections(url, tls_context(certificates), self._network),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(self, body: bytes) -> Receipt:
        """Send one request and tell what became of it; never raises, never retries, follows no redirect."""
        content = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0) if self._compression == "gzip" else body
        try:
            with untraced(), self._network.bounded(self._timeout_s):
                answer = self._exchange(content)
            receipt = receipt_of(answer, now_s=self._clock(), read_success=self._read_success)
        except Exception as error:
            # whatever a peer can bring the client's packages to raise: the request may have been sent
            receipt = receipt_of_failure(error)
        place = "" if receipt.outcome is Outcome.ACCEPTED else f"{self._place}: "
        return msgspec.structs.replace(receipt, message=self._redact(f"{place}{receipt.message}"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _exchange(self, content: bytes) -> Answer:
        with self._client.stream("POST", self._url, content=content) as response:
            headers: dict[str, str] = {}
            for name, value in response.headers.multi_items():
                # what stands between may say a thing once more: two of them joined mean nothing
                headers.setdefault(name.lower(), value)
            return Answer(status=response.status_code, headers=headers, body=_body_of(response))


class _Connections(httpx.BaseTransport):
    """Connections to one server, or to the proxy that the environment names for it, over a `BoundedNetwork`."""

    def __init__(self, url: str, context: ssl.SSLContext, network: BoundedNetwork) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            proxy=_core_proxy_for(url),
            max_keepalive_connections=8,
            keepalive_expiry=4.0,
            network_backend=network,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                _core_url(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_AnswerStream(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _AnswerStream(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _core_proxy_for(url: str) -> httpcore.Proxy | None:
    proxy = proxy_for(url)
    return None if proxy is None else httpcore.Proxy(_core_url(proxy.url), auth=proxy.raw_auth)


def _body_of(response: httpx.Response) -> bytes:
    """The body, as far as it is looked at.

    What it takes to be sure of a success is all of it. An error's status says enough, also if the body that should
    explain it breaks off, or never ends.
    """
    body = bytearray()
    try:
        for chunk in pieces_of(response):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    except Exception:
        if response.is_success:
            raise
    return bytes(body[: MAX_BODY_BYTES + 1])


def receipt_of_failure(error: Exception) -> Receipt:
    """Tell what a failed exchange means: whether the whole request may have reached the server."""
    words = shortened(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    if isinstance(error, httpcore.ProxyError) and str(error).startswith(_PROXY_CREDENTIALS):
        return Receipt(outcome=Outcome.UNAUTHORIZED, message=words)
    is_sent = not isinstance(error, _NOT_SENT) and not any(map(_is_of_certificate, error.args))
    return Receipt(outcome=Outcome.UNKNOWN if is_sent else Outcome.RETRY, message=words)


def _is_of_certificate(cause: object) -> bool:
    """Whether the server refused this side's certificate: with TLS 1.3 that comes when the request is on its way."""
    return isinstance(cause, ssl.SSLError) and _OF_CERTIFICATE.search(cause.reason or "") is not None


_OF_CERTIFICATE: Final = re.compile(r"_ALERT_(?:.*CERTIFICATE.*|UNKNOWN_CA|DECRYPT_ERROR|ACCESS_DENIED)$")


_PROXY_CREDENTIALS: Final = "407"
"""How the words of a proxy that asks for other credentials begin."""

_NOT_SENT: Final = (
    # no connection: refused, no such name, TLS failure, no proxy, or no free connection in time
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
    # the request could not be sent to its end, and no server acts on a body that stops short of its length
    httpcore.WriteError,
    httpcore.WriteTimeout,
)


def tls_context(certificates: Certificates) -> ssl.SSLContext:
    """Make the TLS settings that go with the certificates.

    Raises:
        ConfigurationError: a certificate cannot be loaded.
    """
    if certificates == Certificates():
        return _platform_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        context = ssl.create_default_context(cafile=certificates.authority or None)
        if certificates.client:
            context.load_cert_chain(certificates.client, certificates.client_key or None)
    except (OSError, ssl.SSLError) as error:
        paths = ", ".join(filter(None, (certificates.authority, certificates.client, certificates.client_key)))
        raise ConfigurationError(f"TLS certificates cannot be loaded from {paths}: {error}") from None
    return context


@lru_cache(maxsize=1)
def _platform_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The one of all connections that trust what the platform does: it takes longer to load than a session to deliver.

    Args:
        file: OpenSSL reads this variable of the environment itself; if it has changed, there must be another context.
        folder: the same.
    """
    return ssl.create_default_context()
