"""A real OpenTelemetry Collector with a queue on disk, as docs/scaling.md puts it between agents and backends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.servers.programs import COLLECTOR
from tests.servers.running import RunningServer, answers, free_ports
from tests.workplace import ROOT

CONFIGURATION = ROOT / "examples" / "collector.yaml"


class Collector(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running Collector listens."""

    otlp_http: str
    server: RunningServer


@contextmanager
def running_collector(folder: Path, backends: Sequence[str]) -> Iterator[Collector]:
    """Run the documented Collector on other ports, before the OTLP/HTTP `backends`, for as long as the block takes."""
    program = COLLECTOR.require()
    otlp_http, otlp_grpc, health = free_ports(3)
    url = f"http://127.0.0.1:{health}"
    configuration = moved(yaml.safe_load(CONFIGURATION.read_text("utf-8")), folder, backends)
    protocols = configuration["receivers"]["otlp"]["protocols"]
    protocols["http"]["endpoint"] = f"127.0.0.1:{otlp_http}"
    protocols["grpc"]["endpoint"] = f"127.0.0.1:{otlp_grpc}"
    configuration["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{health}"
    server = RunningServer(program, folder, configuration, lambda: answers(url))
    try:
        server.start()
        yield Collector(otlp_http=f"http://127.0.0.1:{otlp_http}", server=server)
    finally:
        server.kill()


def moved(configuration: dict[str, Any], folder: Path, backends: Sequence[str]) -> dict[str, Any]:
    """The configuration with its queue in `folder` and its exporters, in their order, before other backends."""
    configuration["extensions"]["file_storage"]["directory"] = str(folder / "queue")
    for exporter, endpoint in zip(configuration["exporters"].values(), backends, strict=True):
        exporter["endpoint"] = endpoint
    configuration["service"]["telemetry"] = {"metrics": {"level": "none"}, "logs": {"level": "warn"}}
    return configuration
