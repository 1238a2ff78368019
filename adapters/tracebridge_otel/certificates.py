"""The certificates that the settings of an otel sink name, for its endpoint and for its reader."""

from __future__ import annotations

from tracebridge_otel.configuration import OtelSettings
from tracebridge_otlp.http_transport import Certificates


def certificates_of(settings: OtelSettings) -> Certificates:
    """The certificates for every connection of a sink."""
    return Certificates(
        authority=settings.certificate, client=settings.client_certificate, client_key=settings.client_key
    )
