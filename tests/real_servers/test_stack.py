"""The profile `otel` of the Compose stack without its containers: its Collector as configured, before a real Jaeger."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.jaeger import running_jaeger
from tests.servers.programs import COLLECTOR
from tests.servers.running import RunningServer, answers, free_ports
from tests.workplace import COMMAND_TIMEOUT_S, ROOT, Workplace, environment

pytestmark = pytest.mark.real_server

HAND_WRITTEN = ROOT / "tests" / "data" / "legacy"
CONFIGURATION = ROOT / "deploy" / "otel-collector.yaml"
NOBODY = "127.0.0.1:9"


def test_what_the_example_sends_to_the_collector_is_read_back_from_jaeger_while_tempo_is_away(tmp_path: Path) -> None:
    program = COLLECTOR.require()
    with running_jaeger(tmp_path / "jaeger") as jaeger:
        grpc, http, health = free_ports(3)
        configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
        protocols = configuration["receivers"]["otlp"]["protocols"]
        protocols["grpc"]["endpoint"], protocols["http"]["endpoint"] = f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
        configuration["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{health}"
        configuration["exporters"]["otlp_grpc/jaeger"]["endpoint"] = jaeger.otlp_grpc.removeprefix("http://")
        configuration["exporters"]["otlp_grpc/tempo"]["endpoint"] = NOBODY
        configuration["service"]["telemetry"] = {"metrics": {"level": "none"}}
        collector = RunningServer(
            program, tmp_path / "collector", configuration, lambda: answers(f"http://127.0.0.1:{health}/")
        )
        try:
            collector.start()
            ports = {"OTLP_HTTP_PORT": str(http), "JAEGER_PORT": jaeger.url.rpartition(":")[2]}
            delivered = told(tmp_path, ports, "backfill", HAND_WRITTEN, "--json")
            (verdict,) = told(tmp_path, ports, "validate", "--json")
        finally:
            collector.kill()
    assert [(sink["spans"], sink["left"], sink["dead"]) for sink in delivered["sinks"]] == [(26, 0, 0)]
    assert (verdict["exit_code"], verdict["expected"], verdict["equal"]) == (0, 26, 26)


def told(folder: Path, ports: dict[str, str], *arguments: str | Path) -> Any:
    """What a command prints with the example's configuration, which it must do well."""
    ran = subprocess.run(
        Workplace.command("--config", ROOT / "examples" / "otel.yaml", *arguments),
        cwd=folder,
        env=environment(**ports),
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)
