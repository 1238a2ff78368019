"""A development backend that all tests of the adapter share, and the adapter opened on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracebridge.devserver import DevServer
from tracebridge.secret import Secret
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink


def settings_of(server: DevServer, **changes: object) -> LangfuseSettings:
    given = {"host": server.url, "public_key": server.public_key, "secret_key": Secret(server.secret_key)}
    return LangfuseSettings(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="package")
def backend() -> Iterator[DevServer]:
    """One server for tests that keep apart by their trace ids; it has no faults."""
    with DevServer() as server:
        yield server


@pytest.fixture(scope="package")
def sink(backend: DevServer) -> Iterator[LangfuseSink]:
    opened = LangfuseSink(settings_of(backend))
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def reader(backend: DevServer) -> Iterator[LangfuseReader]:
    opened = LangfuseReader(settings_of(backend))
    yield opened
    opened.close()
