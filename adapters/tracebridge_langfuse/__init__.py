"""The LangFuse adapter: spans out by OTLP/HTTP, back in by the v2 observations API.

What LangFuse has a field for goes there and only there; `mapping` and `observation` are the two directions.
Entry point: `factory.LANGFUSE`.
"""
