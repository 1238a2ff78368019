"""Sends spans over OTLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import msgspec

from tracebridge.sink import Receipt
from tracebridge.span import Span
from tracebridge.version import installed_version
from tracebridge_otel.certificates import certificates_of
from tracebridge_otel.configuration import OtelSettings, Semconv
from tracebridge_otel.limit import cut_content, cut_texts, fits, within
from tracebridge_otel.mapping import to_wire
from tracebridge_otel.openinference import openinference_attributes
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.grpc_transport import GrpcTransport
from tracebridge_otlp.http_transport import HttpTransport
from tracebridge_otlp.wire import Attributes, WireScope


class Transport(Protocol):
    """Sends one request and tells what became of it."""

    def post(self, body: bytes) -> Receipt:
        """Send one request."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class OtelSink:
    """A `tracebridge.sink.Sink` for any backend that takes OTLP."""

    def __init__(
        self,
        transport: Transport,
        resource: Attributes,
        scope: WireScope,
        semconv: Semconv,
        attributes: Attributes,
        limit: int,
    ) -> None:
        """Send by `transport`, under `resource` and `scope`, with the names of `semconv`, and `attributes` besides.

        No attribute has more than `limit` bytes, unless that is 0.
        """
        self._limit = limit
        self._cut = 0
        self._attributes = cut_texts(attributes, limit) if limit else attributes
        self._transport = transport
        self._resource = resource
        self._scope = scope
        self._semconv = semconv

    @classmethod
    def open(cls, settings: OtelSettings) -> Self:
        """Open a sink as the settings say; no connection is made yet."""
        return cls(
            open_transport(settings),
            resource_of(settings),
            WireScope(name="tracebridge", version=installed_version()),
            settings.semconv,
            dict(settings.attributes),
            settings.attribute_limit,
        )

    def encode(self, span: Span) -> bytes:
        """Encode one span as a part of a request."""
        wire = to_wire(span)
        if self._limit and not fits(wire.attributes, self._limit):
            cut = cut_content(span, self._limit, wire.attributes)
            self._cut += cut is not span
            span, wire = cut, within(to_wire(cut), self._limit)
        besides = self._besides(span)
        if besides:
            wire = msgspec.structs.replace(wire, attributes=wire.attributes | besides)
        return encode_span(wire)

    def _besides(self, span: Span) -> Attributes:
        """What nobody reads back: it stands there for whoever looks at the span in the backend."""
        if self._semconv != "openinference":
            return self._attributes
        named = openinference_attributes(span)
        return self._attributes | (cut_texts(named, self._limit) if self._limit else named)

    def take_cut(self) -> int:
        """How many times `encode` has cut a span since this was asked last."""
        cut, self._cut = self._cut, 0
        return cut

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Make one request of encoded spans."""
        return join(parts, self._resource, self._scope)

    def deliver(self, request: bytes) -> Receipt:
        """Send one request and report the answer."""
        return self._transport.post(request)

    def close(self) -> None:
        """Release connections."""
        self._transport.close()


def open_transport(settings: OtelSettings) -> Transport:
    """Open the transport that the settings name."""
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    transport = GrpcTransport if settings.protocol == "grpc" else HttpTransport
    return transport(
        settings.url,
        headers=headers,
        timeout_s=settings.timeout_s,
        compression=settings.compression,
        certificates=certificates_of(settings),
    )


def resource_of(settings: OtelSettings) -> Attributes:
    """The resource that all spans of a sink stand under."""
    resource: Attributes = {
        "telemetry.sdk.name": "tracebridge",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": installed_version() or "unknown",
        **settings.resource,
        "service.name": settings.service,
    }
    if settings.service_version:
        resource["service.version"] = settings.service_version
    return resource
