"""Sends spans to LangFuse's OTLP route."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from tracebridge.sink import Receipt
from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.mapping import to_wire
from tracebridge_otlp.answer import json_success
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.http_transport import Certificates, HttpTransport
from tracebridge_otlp.secrecy import Redactor
from tracebridge_otlp.wire import WireScope

ROUTE: Final = "/api/public/otel/v1/traces"
_SCOPE: Final = WireScope(name=names.SCOPE)


class LangfuseSink:
    """A `tracebridge.sink.Sink`. It makes no connection before `deliver`."""

    def __init__(self, settings: LangfuseSettings) -> None:
        # the transport knows the header only, and a server may quote the key itself
        self._redact = Redactor([settings.secret_key.reveal()], settings.base_url)
        credentials = f"{settings.public_key}:{settings.secret_key.reveal()}".encode()
        self._transport = HttpTransport(
            settings.base_url + ROUTE,
            headers={
                "authorization": f"Basic {base64.b64encode(credentials).decode()}",
                **names.INGESTION_VERSION,
            },
            timeout_s=settings.timeout,
            compression="gzip",
            certificates=Certificates(authority=settings.ca_file),
            # a 200 only says that the request is queued; its body is the queue's own, never a partial success
            read_success=json_success,
        )

    def encode(self, span: Span) -> bytes:
        """Encode one span as a part of a request."""
        return encode_span(to_wire(span))

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Make one request of encoded spans."""
        # no resource attributes: the server would show them among the metadata of every observation
        return join(parts, {}, _SCOPE)

    def deliver(self, request: bytes) -> Receipt:
        """Send one request and report the answer."""
        receipt = self._transport.post(request)
        return msgspec.structs.replace(receipt, message=self._redact(receipt.message))

    def close(self) -> None:
        """Release connections."""
        self._transport.close()
