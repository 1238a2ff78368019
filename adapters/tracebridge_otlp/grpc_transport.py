"""OTLP over gRPC: one unary call, and what its status means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import grpc
import msgspec
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tracebridge.errors import ConfigurationError, ForkedError
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.answer import outcome_of_status, partial_success, says_too_large, shortened
from tracebridge_otlp.http_transport import Certificates, Compression
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials
from tracebridge_otlp.untraced import untraced

_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_STATUS_DETAILS: Final = "grpc-status-details-bin"

_NO_CONNECTION: Final = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
"""How gRPC begins its words on a call for which there never was a connection."""

_OWN_LIMIT: Final = "CLIENT: Received message larger than max"
"""What gRPC says of an answer that is too large for this side to read; the request was dealt with then."""

_OWN_DEADLINE: Final = "Deadline Exceeded"
"""What gRPC says once a call's time is up, alone or within words that depend on where it noticed."""

_HTTP_STATUS: Final = re.compile(r"\bReceived http2 header with status: (\d{3})\b")
"""What gRPC says where something between answers as HTTP does, as nginx, which takes 1 MB by default, does with 413."""

_PROXY_SAYS_TOO_LARGE: Final = re.compile(r"(?:payload|request entity|content) too large", re.IGNORECASE)
"""All that Envoy says then, with a status of gRPC's that means nothing."""

_METADATA_NAME: Final = re.compile(r"[a-z0-9_.-]+(?<!-bin)")
"""Fewer than over HTTP; what is behind `-bin` is no text."""

_OF_A_SIZE: Final = ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")
"""What servers answer to a message that is too large: Go, C++ and Java the first, Rust the other."""

_OF_A_RATE: Final = re.compile(
    r"\brate[\s_-]*limit|\bquota|\bthrottl|\btoo\s+many\b|\bper[\s-]+(?:second|minute|hour|day)\b|\blive[\s_-]+traces\b",
    re.IGNORECASE,
)
"""How servers speak of what comes too often. They count it in bytes and limits, too, as if it were too large."""

_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "INVALID_ARGUMENT": Outcome.REJECTED,
    "ALREADY_EXISTS": Outcome.REJECTED,
    "FAILED_PRECONDITION": Outcome.REJECTED,
    "UNAUTHENTICATED": Outcome.UNAUTHORIZED,
    "PERMISSION_DENIED": Outcome.UNAUTHORIZED,
    # nothing takes traces at this address; not the spans' fault
    "UNIMPLEMENTED": Outcome.RETRY,
    "NOT_FOUND": Outcome.RETRY,
    # OTLP lets a client try again only if the server says when; the journal can wait without being told
    "RESOURCE_EXHAUSTED": Outcome.RETRY,
    # OTLP: retryable. Yet the spans may have been stored before the call broke off.
    "CANCELLED": Outcome.UNKNOWN,
    "DEADLINE_EXCEEDED": Outcome.UNKNOWN,
    "ABORTED": Outcome.UNKNOWN,
    "OUT_OF_RANGE": Outcome.UNKNOWN,
    "DATA_LOSS": Outcome.UNKNOWN,
    # as HTTP's 500: something broke, perhaps after the spans were stored
    "INTERNAL": Outcome.UNKNOWN,
    "UNKNOWN": Outcome.UNKNOWN,
}
"""What a status means by its code alone; see `_outcome_of` for those that need more. Any other is UNKNOWN."""


class CallFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed gRPC call as far as its meaning depends on it."""

    code: str
    """The status code's name."""
    details: str = ""
    retry_after_s: float | None = None
    """The delay of the status' `RetryInfo`, which only a server sends."""


class GrpcTransport:
    """Calls one OTLP server. Safe to use from several threads at once."""

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float = 10.0,
        compression: Compression = "none",
        certificates: Certificates = Certificates(),  # noqa: B008  # frozen
    ) -> None:
        """Prepare a transport; no connection is made yet.

        Args:
            endpoint: `https://host:port` for TLS, `http://host:port` or `host:port` for plain text.
            headers: Sent as metadata with every call. Their values are taken for secrets.
            timeout_s: How long a call may take, connecting included.
            compression: How the request is compressed.
            certificates: Certificates for TLS.

        Raises:
            ConfigurationError: a certificate cannot be loaded, or a header cannot be sent.
            ForkedError: a parent of this process used gRPC before it forked.
        """
        _FIRST_USE.check()
        url = endpoint if "://" in endpoint else f"http://{endpoint}"
        self._place = without_credentials(url)
        self._redact = Redactor(headers.values(), url)
        self._timeout_s = timeout_s
        self._metadata = _metadata_of(headers)
        self._channel = _channel(url, compression, certificates)
        # the request is sent as the bytes that it is: parsing it anew would only cost time
        self._export = self._channel.unary_unary(
            _EXPORT, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(self, body: bytes) -> Receipt:
        """Send one request and tell what became of it; never raises, never retries."""
        try:
            with untraced():
                response = self._export(body, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            receipt = receipt_of_call(_failure_of(error, self._timeout_s))
        except ValueError as error:
            # a closed channel, or metadata that gRPC does not take
            receipt = Receipt(outcome=Outcome.RETRY, message=shortened(f"gRPC call not made: {error}"))
        else:
            receipt = partial_success(response.partial_success.rejected_spans, response.partial_success.error_message)
        place = "" if receipt.outcome is Outcome.ACCEPTED else f"{self._place}: "
        return msgspec.structs.replace(receipt, message=self._redact(f"{place}{receipt.message}"))

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()


class _FirstUse:
    """The process in which gRPC was first used.

    In a child that is forked after that, gRPC's threads are missing and its locks may be held for ever: calls fail or
    hang, whatever its own fork handlers are set to do.
    """

    def __init__(self) -> None:
        self._pid = 0

    def check(self) -> None:
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            raise ForkedError("gRPC cannot be used in this process, because its parent used it before it forked.")


_FIRST_USE = _FirstUse()


def receipt_of_call(failure: CallFailure) -> Receipt:
    """Tell what a failed call means for the request."""
    return Receipt(
        outcome=_outcome_of(failure),
        retry_after_s=failure.retry_after_s,
        message=shortened(f"gRPC {failure.code}: {failure.details}"),
    )


def _outcome_of(failure: CallFailure) -> Outcome:
    if between := _HTTP_STATUS.search(failure.details):
        outcome = outcome_of_status(int(between[1]), "")
        # no server of OTLP's looks at spans and then answers like this: they are not to blame
        return Outcome.RETRY if outcome is Outcome.REJECTED else outcome
    if failure.code == "UNKNOWN" and _PROXY_SAYS_TOO_LARGE.fullmatch(failure.details):
        return Outcome.TOO_LARGE
    if failure.code in _OF_A_SIZE:
        if _OWN_LIMIT in failure.details:
            return Outcome.UNKNOWN
        # less at once does not help against a limit on how much comes in a time
        is_of_a_time = failure.retry_after_s is not None or _OF_A_RATE.search(failure.details)
        if says_too_large(failure.details) and not is_of_a_time:
            return Outcome.TOO_LARGE
    if failure.code == "UNAVAILABLE":
        # gRPC gives a server that is overloaded and a connection that broke during the call the same code
        not_taken = failure.retry_after_s is not None or failure.details.startswith(_NO_CONNECTION)
        return Outcome.RETRY if not_taken else Outcome.UNKNOWN
    return _OUTCOMES.get(failure.code, Outcome.UNKNOWN)


def _metadata_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    fields = header_fields(headers)
    if not all(map(_METADATA_NAME.fullmatch, fields)):
        raise ConfigurationError(
            "a header has a name that gRPC does not take: there may be letters, digits, `-`, `_` and `.` in it, "
            "and no `-bin` at its end; correct it"
        )
    return tuple(fields.items())


def _failure_of(error: Any, timeout_s: float) -> CallFailure:
    code, details = error.code().name, error.details() or ""
    if code == "DEADLINE_EXCEEDED" and _OWN_DEADLINE in details:
        details = f"not done within {timeout_s:g} s"
    return CallFailure(
        code=code,
        details=details,
        retry_after_s=_retry_after_s(error.trailing_metadata()),
    )


def _retry_after_s(metadata: Any) -> float | None:
    for name, value in metadata or ():
        if name != _STATUS_DETAILS:
            continue
        try:
            details = Status.FromString(value).details
            for detail in details:
                retry_info = RetryInfo()
                if detail.Unpack(retry_info):
                    asked_s = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9
                    return asked_s if asked_s >= 0 else None
        except DecodeError:
            return None
    return None


def _channel(url: str, compression: Compression, certificates: Certificates) -> grpc.Channel:
    parts = urlsplit(url)
    target = parts.netloc.rpartition("@")[2]
    compressor = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
    # the request's size is the sink's own affair, see `Capabilities.max_request_bytes`
    options = (
        ("grpc.max_send_message_length", -1),
        ("grpc.primary_user_agent", "tracebridge"),
        ("grpc.enable_retries", 0),
    )
    if parts.scheme != "https":
        return grpc.insecure_channel(target, options=options, compression=compressor)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(certificates.authority),
        private_key=_pem(certificates.client_key or certificates.client),
        certificate_chain=_pem(certificates.client),
    )
    return grpc.secure_channel(target, credentials, options=options, compression=compressor)


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS certificate cannot be loaded: {error}") from None
