"""The `otel` sink type, which the entry point names. Vendor packages load only when it opens something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from tracebridge.diagnosis import Check
from tracebridge.errors import MissingExtraError
from tracebridge.sink import Capabilities, Loss, Reader, Sink
from tracebridge.span import Span
from tracebridge.tracecontext import Propagation
from tracebridge_otel.configuration import ENVIRONMENT, TRACE_ID, OtelSettings
from tracebridge_otel.limit import as_cut, cut_content
from tracebridge_otel.losses import TIME_IN_MICROSECONDS, content_cut
from tracebridge_otel.mapping import MAPPING_VERSION
from tracebridge_otel.openinference import OPENINFERENCE_VERSION
from tracebridge_otlp.secrecy import without_credentials

_MAX_REQUEST_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""What a gRPC server takes unless it is told otherwise, less the resource; OTLP/HTTP receivers take more."""

_HIDDEN_FROM_TEMPOS_SEARCH = (
    "Tempo finds spans that were more than two minutes old when they arrived, as those of a backfill and of what was "
    "delivered late are, by their trace's id alone."
)

_OPENINFERENCE = 1_000
"""Far above any version of the mapping."""

_LIMIT = 1_000_000
"""Far above any version of both mappings."""


class OtelSinkType:
    """OpenTelemetry backends: Jaeger, Tempo, a Collector, anything that takes OTLP."""

    @property
    def settings(self) -> type[msgspec.Struct]:
        """The record of the sink's settings."""
        return OtelSettings

    @property
    def environment(self) -> Mapping[str, Sequence[str]]:
        """OpenTelemetry's own variables."""
        return ENVIRONMENT

    @property
    def extra(self) -> str:
        """The extra that brings the sink's packages."""
        return "otel"

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        """What a sink with these settings declares."""
        otel_settings = cast(OtelSettings, settings)
        reader = otel_settings.reader
        return Capabilities(
            mapping_version=_mapping_version(otel_settings),
            max_request_bytes=_MAX_REQUEST_BYTES,
            readable=reader is not None,
            visibility_lag_s=reader.visibility_lag_s if reader else 0.0,
            hidden_from_search=_HIDDEN_FROM_TEMPOS_SEARCH if reader and reader.type == "tempo" else "",
            losses=_losses(otel_settings),
            as_sent=_as_sent,
        )

    def endpoint(self, settings: msgspec.Struct) -> str:
        """Where the sink sends to, without credentials."""
        parts = urlsplit(cast(OtelSettings, settings).url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def trace_url(self, settings: msgspec.Struct, trace_id: str) -> str:
        """The page that `trace_page` names, or Jaeger's; Tempo has none of its own."""
        own = cast(OtelSettings, settings)
        if own.trace_page:
            return own.trace_page.replace(TRACE_ID, trace_id)
        if own.reader is None or own.reader.type != "jaeger":
            return ""
        return f"{without_credentials(own.reader.url.rstrip('/'))}/trace/{trace_id}"

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        """Open the sink."""
        try:
            from tracebridge_otel.sink import OtelSink
        except ImportError as error:
            raise _missing(error) from error
        return OtelSink.open(cast(OtelSettings, settings))

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        """Open the reader."""
        own = cast(OtelSettings, settings)
        assert own.reader is not None, "only called where the capabilities say readable"
        try:
            from tracebridge_otel.jaeger_reader import JaegerReader
            from tracebridge_otel.tempo_reader import TempoReader
        except ImportError as error:
            raise _missing(error) from error
        return JaegerReader.open(own) if own.reader.type == "jaeger" else TempoReader.open(own)

    def diagnose(self, settings: msgspec.Struct, timeout_s: float) -> Iterator[Check]:
        """What can be told of the endpoint, and of the reader, before anything is sent."""
        try:
            from tracebridge_otel.diagnosis import diagnose
        except ImportError as error:
            raise _missing(error) from error
        return diagnose(cast(OtelSettings, settings), timeout_s)


def open_propagation() -> Propagation:
    """Open the plug-in that the entry point of the group `tracebridge.propagation` names.

    Raises:
        MissingExtraError: OpenTelemetry's API is not installed.
    """
    try:
        from tracebridge_otel.propagation import OpenTelemetryPropagation
    except ImportError as error:
        raise MissingExtraError(
            f"`propagate` connects to OpenTelemetry's API, which is not installed ({error}); "
            "install it with: pip install 'tracebridge[otel]', or leave `propagate` out"
        ) from error
    return OpenTelemetryPropagation()


def _losses(settings: OtelSettings) -> tuple[Loss, ...]:
    losses: list[Loss] = []
    if settings.reader is not None and settings.reader.type == "jaeger":
        losses.append(TIME_IN_MICROSECONDS)
    if settings.attribute_limit:
        losses.append(content_cut(settings.attribute_limit))
    return tuple(losses)


def _mapping_version(settings: OtelSettings) -> int:
    """One number for both mappings and the limit, so that a span's fingerprint tells how it was sent."""
    names = _OPENINFERENCE * OPENINFERENCE_VERSION if settings.semconv == "openinference" else 0
    return MAPPING_VERSION + names + _LIMIT * settings.attribute_limit


def _as_sent(span: Span, mapping_version: int, shown: Span) -> Span:
    """What was sent of a span under another limit, or by another mapping, in whose forms more had room or less."""
    limit, mapping = divmod(mapping_version, _LIMIT)
    if not limit:
        return span
    return cut_content(span, limit) if mapping % _OPENINFERENCE == MAPPING_VERSION else as_cut(span, shown)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"the otel sink needs packages that are not installed ({error}); "
        "install them with: pip install 'tracebridge[otel]'"
    )


sink_type = OtelSinkType()
