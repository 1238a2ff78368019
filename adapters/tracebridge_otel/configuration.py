"""The sink's settings. Importing this loads no vendor package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from tracebridge.secret import Secret
from tracebridge_otel.limit import SMALLEST
from tracebridge_otel.names import is_taken
from tracebridge_otlp.address import is_http_url
from tracebridge_otlp.durations import RequestSeconds, Seconds

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["gzip", "none"]
Semconv = Literal["genai", "openinference"]
Backend = Literal["jaeger", "tempo"]
AttributeBytes = Annotated[int, msgspec.Meta(ge=0)]

_DEFAULT_ENDPOINT: Final[Mapping[Protocol, str]] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
TRACE_ID: Final = "{trace_id}"
"""What stands for a trace's id in `trace_page`."""
_TRACES_PATH: Final = "/v1/traces"
_VISIBILITY_LAG_S: Final[Mapping[Backend, float]] = {"jaeger": 5.0, "tempo": 15.0}
"""Jaeger's is measured; Tempo's could not be, and so is a generous one."""
_TEMPOS_ATTRIBUTE_BYTES: Final = 2_048
_LOOKBACK_S: Final = 30 * 86_400.0
"""Twice as long as Tempo keeps traces unless it is told otherwise."""

ENVIRONMENT: Final[Mapping[str, Sequence[str]]] = {
    "traces_endpoint": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",),
    "base_endpoint": ("OTEL_EXPORTER_OTLP_ENDPOINT",),
    "protocol": ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    "headers": ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
    "timeout_ms": ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    "compression": ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    "insecure": ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"),
    "certificate": ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    "client_certificate": (
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    ),
    "client_key": ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
    "service_name": ("OTEL_SERVICE_NAME",),
    "resource": ("OTEL_RESOURCE_ATTRIBUTES",),
}
"""OpenTelemetry's variables; those of the traces signal come before the general ones."""


class ReaderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the spans can be read back."""

    type: Backend = "jaeger"
    """Whose query API it is: Jaeger's `/api/v3`, or Tempo's."""
    url: str
    """The query service, e.g. `http://localhost:16686` or `http://localhost:3200`, with its base path if it has one."""
    headers: dict[str, Secret] = {}
    """Sent with every request, e.g. for a proxy that asks for credentials, or `X-Scope-OrgID` for Tempo's tenant."""
    timeout: RequestSeconds = 30.0
    """Seconds that one request may take."""
    visibility_lag: Seconds | None = None
    """Seconds that may pass, as a rule, before what was sent can be read back."""
    lookback: Seconds | None = None
    """Only for Tempo: how many seconds a search goes back that names no beginning."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        _check_url("reader.url", self.url)
        if self.lookback is not None and self.type != "tempo":
            raise ValueError("reader.lookback is for `type: tempo` alone: Jaeger searches all that it has")

    @property
    def visibility_lag_s(self) -> float:
        """The visibility lag, or what it is by default, in seconds."""
        return _VISIBILITY_LAG_S[self.type] if self.visibility_lag is None else self.visibility_lag

    @property
    def lookback_s(self) -> float:
        """How far a search goes back that names no beginning, in seconds."""
        return _LOOKBACK_S if self.lookback is None else self.lookback


class OtelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an `otel` sink; the defaults are OpenTelemetry's."""

    endpoint: str = ""
    """Where to send to. Over HTTP, `/v1/traces` is put at the end of it unless it stands there."""
    traces_endpoint: str = ""
    """Where to send to, taken as it is. `endpoint` comes first."""
    base_endpoint: str = ""
    """Where all signals are sent to; as `endpoint`, which comes first."""
    protocol: Protocol = "http/protobuf"
    headers: dict[str, Secret] = {}
    """Sent with every request, e.g. for credentials."""
    timeout: RequestSeconds | None = None
    """Seconds that one request may take."""
    timeout_ms: Annotated[float, msgspec.Meta(gt=0, le=2_147_483_647)] | None = None
    """The same in milliseconds, as the environment has it; `timeout` comes first."""
    compression: Compression = "none"
    insecure: bool = False
    """Whether a gRPC endpoint without `http://` or `https://` is spoken to in plain text."""
    certificate: str = ""
    """A PEM file of the authorities to trust."""
    client_certificate: str = ""
    """A PEM file of the client's certificate, for mutual TLS."""
    client_key: str = ""
    """A PEM file of the client's key."""
    service_name: str = ""
    service_version: str = ""
    resource: dict[str, str] = {}
    """Further resource attributes."""
    attributes: dict[str, str | bool | int | float] = {}
    """Attributes that every span has besides its own. They are not read back."""
    trace_page: str = ""
    """The address of a trace's page, with `{trace_id}` in it; by default the reader's Jaeger's. Tempo has none."""
    semconv: Semconv = "genai"
    """Whose attribute names spans have: the GenAI names alone, or OpenInference's too, as Phoenix shows them."""
    max_attribute_bytes: AttributeBytes | None = None
    """The most bytes of an attribute that the backend takes: content that needs more is cut with a mark; 0 for all.
    By default 2,048 with a reader of Tempo's, which is Tempo's own limit unless it is told otherwise, and else 0."""
    reader: ReaderSettings | None = None
    """Where the spans can be read back; without it the sink cannot be validated."""

    def __post_init__(self) -> None:
        """Check what a type cannot say, and fix relative paths: another process may open them, from elsewhere."""
        for name in ("certificate", "client_certificate", "client_key"):
            path = getattr(self, name)
            if path:
                msgspec.structs.force_setattr(self, name, os.path.abspath(path))
        _check_url("endpoint", self._address)
        given = self.endpoint or self.traces_endpoint or self.base_endpoint
        if "://" not in given and urlsplit(self._address).username is not None:
            # to whoever reads the configuration it is no URL, and would be shown
            raise ValueError("endpoint: the URL holds credentials; give them as headers")
        taken = sorted(name for name in self.attributes if not name or is_taken(name))
        if taken:
            raise ValueError(
                f"attributes: {', '.join(map(repr, taken))} is a name that spans have anyway; choose another"
            )
        if 0 < self.attribute_limit < SMALLEST:
            raise ValueError(f"max_attribute_bytes: expected at least {SMALLEST}, or 0 for no limit")
        if self.trace_page:
            _check_url("trace_page", self.trace_page)
            if TRACE_ID not in self.trace_page:
                raise ValueError(f"trace_page: expected {TRACE_ID} somewhere in it")
        if self.client_key and not self.client_certificate:
            raise ValueError("client_key is given without client_certificate")

    @property
    def url(self) -> str:
        """Where requests go to, complete."""
        if self.protocol == "grpc" or (not self.endpoint and self.traces_endpoint):
            return self._address
        parts = urlsplit(self._address)
        path = parts.path.rstrip("/")
        if not path.endswith(_TRACES_PATH):
            path += _TRACES_PATH
        return urlunsplit(parts._replace(path=path))

    @property
    def _address(self) -> str:
        address = self.endpoint or self.traces_endpoint or self.base_endpoint or _DEFAULT_ENDPOINT[self.protocol]
        if self.protocol == "grpc" and "://" not in address:
            return f"{'http' if self.insecure else 'https'}://{address}"
        return address

    @property
    def timeout_s(self) -> float:
        """How long one request may take, in seconds."""
        if self.timeout is not None:
            return self.timeout
        return 10.0 if self.timeout_ms is None else self.timeout_ms / 1000

    @property
    def attribute_limit(self) -> int:
        """The most bytes that an attribute is sent with; 0 where all are."""
        if self.max_attribute_bytes is not None:
            return self.max_attribute_bytes
        return _TEMPOS_ATTRIBUTE_BYTES if self.reader is not None and self.reader.type == "tempo" else 0

    @property
    def service(self) -> str:
        """The service that the spans stand under."""
        return self.service_name or self.resource.get("service.name") or "agent"


def _check_url(key: str, url: str) -> None:
    if not is_http_url(url):
        raise ValueError(f"{key}: expected http://host:port or https://host:port, without spaces and line breaks")
