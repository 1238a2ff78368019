"""The OpenTelemetry sink: OTLP with GenAI names, and a reader for Jaeger."""
