"""What each of the three processes does with stock OpenTelemetry packages: send its spans to one OTLP endpoint."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def set_up(service_name: str) -> TracerProvider:
    """Export this process's spans under a name, and instrument its HTTP client."""
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
    endpoint = f"{os.environ['OTLP_ENDPOINT']}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), schedule_delay_millis=200))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
    return provider
