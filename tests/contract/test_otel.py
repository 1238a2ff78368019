"""The OpenTelemetry sink keeps the sink contract over HTTP and gRPC, with a reader and without.

One of the five is enough for every run: the LangFuse sink, beside it, speaks HTTP and has a reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.stored import stored_in
from tracebridge.devserver import DevServer
from tracebridge.secret import Secret
from tracebridge.testing import Fault
from tracebridge.testing.contract import BackendUnderTest, SinkContract
from tracebridge_otel.configuration import OtelSettings, ReaderSettings
from tracebridge_otel.factory import sink_type

TIMEOUT_S = 1.0
VENDORS = ("grpc", "httpx", "opentelemetry", "google")
GRPC = "GRPC /opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[DevServer, Path]]:
    """One a test, and its file: a request that a test gave up may come in after its end."""
    file = tmp_path / "backend.sqlite"
    with DevServer(db=file, grpc_port=0) as server:
        yield server, file


class OtelContract(SinkContract):
    @pytest.fixture
    def backend(self, server: tuple[DevServer, Path]) -> BackendUnderTest:
        return self.on(*server)

    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        raise NotImplementedError


def over_http(server: DevServer, file: Path, reader: ReaderSettings | None) -> BackendUnderTest:
    return BackendUnderTest(
        sink_type=sink_type,
        settings=OtelSettings(
            endpoint=server.url,
            headers={"x-api-key": Secret("key-of-the-test")},
            compression="gzip",
            timeout=TIMEOUT_S,
            reader=reader,
        ),
        faults=server.faults,
        stored=lambda: stored_in(file, "otlp"),
        timeout_s=TIMEOUT_S,
        export_route="POST /v1/traces",
        vendor_packages=VENDORS,
    )


def over_grpc(server: DevServer, file: Path, reader: ReaderSettings | None) -> BackendUnderTest:
    return BackendUnderTest(
        sink_type=sink_type,
        settings=OtelSettings(
            protocol="grpc",
            endpoint=f"http://{server.grpc_endpoint}",
            headers={"x-api-key": Secret("key-of-the-test")},
            timeout=TIMEOUT_S,
            reader=reader,
        ),
        faults=server.faults,
        stored=lambda: stored_in(file, "otlp"),
        timeout_s=TIMEOUT_S,
        unsupported={"retry_after": "the development backend gives no RetryInfo"},
        export_route=GRPC,
        # RESOURCE_EXHAUSTED: UNAVAILABLE is also what a call that broke off is told as
        busy=Fault(status=429, body="busy"),
        too_large=Fault(status=413, body="message larger than max"),
        vendor_packages=VENDORS,
    )


def jaeger(server: DevServer) -> ReaderSettings:
    return ReaderSettings(url=server.url, visibility_lag=0.1)


def tempo(server: DevServer) -> ReaderSettings:
    return ReaderSettings(type="tempo", url=server.url, visibility_lag=0.1)


@pytest.mark.slow
class TestHttpAndTempo(OtelContract):
    """With the limit and the cut that Tempo has unless it is told otherwise, and its searches that miss what is old."""

    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        return over_http(server, file, tempo(server))


@pytest.mark.slow
class TestHttpAndJaeger(OtelContract):
    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        return over_http(server, file, jaeger(server))


@pytest.mark.slow
class TestHttpWithoutReader(OtelContract):
    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        return over_http(server, file, None)


@pytest.mark.slow
class TestGrpcAndJaeger(OtelContract):
    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        return over_grpc(server, file, jaeger(server))


class TestGrpcWithoutReader(OtelContract):
    def on(self, server: DevServer, file: Path) -> BackendUnderTest:
        return over_grpc(server, file, None)
