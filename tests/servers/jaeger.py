"""A real Jaeger, with its traces in memory or in Badger, which keeps them in Jaeger's own model of a span."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.servers.programs import JAEGER
from tests.servers.running import RunningServer, answers, free_ports
from tracebridge_otel.configuration import OtelSettings, Protocol, ReaderSettings, Semconv

Storage = Literal["memory", "badger"]


class Jaeger(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running Jaeger listens."""

    url: str
    otlp_http: str
    otlp_grpc: str
    server: RunningServer

    def sink(self, protocol: Protocol = "http/protobuf", semconv: Semconv = "genai") -> OtelSettings:
        """Settings of an otel sink that sends to it and reads it back."""
        return OtelSettings(
            protocol=protocol,
            semconv=semconv,
            endpoint=self.otlp_grpc if protocol == "grpc" else self.otlp_http,
            compression="gzip",
            reader=ReaderSettings(url=self.url, visibility_lag=0.5),
        )

    def section(self) -> dict[str, Any]:
        """The same as a section of a configuration file."""
        return {"endpoint": self.otlp_http, "reader": {"type": "jaeger", "url": self.url, "visibility_lag": 0.5}}


@contextmanager
def running_jaeger(folder: Path, storage: Storage = "memory") -> Iterator[Jaeger]:
    """Run a Jaeger for as long as the block takes; skips the test where the program has not been built."""
    program = JAEGER.require()
    query, query_grpc, otlp_http, otlp_grpc = free_ports(4)
    url = f"http://127.0.0.1:{query}"
    configuration = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_query": {
                "storage": {"traces": "some"},
                "http": {"endpoint": f"127.0.0.1:{query}"},
                "grpc": {"endpoint": f"127.0.0.1:{query_grpc}"},
            },
            "jaeger_storage": {"backends": {"some": _storage(storage, folder)}},
        },
        "receivers": {
            "otlp": {
                "protocols": {
                    "http": {"endpoint": f"127.0.0.1:{otlp_http}"},
                    "grpc": {"endpoint": f"127.0.0.1:{otlp_grpc}", "max_recv_msg_size_mib": 64},
                }
            }
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "some"}},
    }
    server = RunningServer(program, folder, configuration, lambda: answers(f"{url}/api/v3/services"))
    try:
        server.start()
        yield Jaeger(
            url=url,
            otlp_http=f"http://127.0.0.1:{otlp_http}",
            otlp_grpc=f"http://127.0.0.1:{otlp_grpc}",
            server=server,
        )
    finally:
        # it would wait for idle connections first
        server.kill()


def _storage(storage: Storage, folder: Path) -> dict[str, Any]:
    if storage == "memory":
        return {"memory": {"max_traces": 100_000}}
    directories = {"keys": str(folder / "keys"), "values": str(folder / "values")}
    return {"badger": {"ephemeral": False, "directories": directories}}
