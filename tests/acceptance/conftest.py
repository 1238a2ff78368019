"""Backends and workplaces of the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workplace import Workplace, both
from tracebridge.devserver import DevServer


@pytest.fixture(scope="package")
def servers() -> Iterator[tuple[DevServer, DevServer]]:
    """Two development backends, which are emptied for each test: starting them takes longer than that."""
    with DevServer() as first, DevServer() as second:
        yield first, second


@pytest.fixture
def devserver(servers: tuple[DevServer, DevServer]) -> DevServer:
    """An empty development backend without faults."""
    servers[0].clear()
    return servers[0]


@pytest.fixture
def second_devserver(servers: tuple[DevServer, DevServer]) -> DevServer:
    """Another one."""
    servers[1].clear()
    return servers[1]


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    """A folder whose configuration has LangFuse and OpenTelemetry on, both on the development backend."""
    return Workplace(tmp_path / "here", both(devserver))
