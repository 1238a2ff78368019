"""The LangFuse sink keeps the sink contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.stored import stored_in
from tracebridge.devserver import DevServer
from tracebridge.secret import Secret
from tracebridge.testing.contract import BackendUnderTest, SinkContract
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.factory import sink_type


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[DevServer, Path]]:
    """One a test, and its file: a request that a test gave up may come in after its end."""
    file = tmp_path / "backend.sqlite"
    with DevServer(db=file) as server:
        yield server, file


class TestLangfuse(SinkContract):
    @pytest.fixture
    def backend(self, server: tuple[DevServer, Path]) -> BackendUnderTest:
        devserver, file = server
        return BackendUnderTest(
            sink_type=sink_type,
            settings=LangfuseSettings(
                host=devserver.url,
                public_key=devserver.public_key,
                secret_key=Secret(devserver.secret_key),
                timeout=1.0,
                visibility_lag=0.1,
            ),
            faults=devserver.faults,
            stored=lambda: stored_in(file, "langfuse"),
            timeout_s=1.0,
            unsupported={"partial": "LangFuse takes a whole export or refuses it"},
            export_route="POST /api/public/otel/*",
            vendor_packages=("httpx", "langfuse", "opentelemetry", "google"),
        )
