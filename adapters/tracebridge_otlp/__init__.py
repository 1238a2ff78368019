"""The OTLP wire, shared by the adapters that speak it: spans as records, their encoding, and two transports.

A library, not a sink: it knows OTLP and what an answer to an export means, and nothing of LangFuse, Jaeger or
`tracebridge.span`. Import its modules directly; only `wire` and `answer` are free of vendor packages.
"""
