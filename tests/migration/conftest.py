"""One development backend for all these tests: each begins with an empty one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracebridge.devserver import DevServer


@pytest.fixture(scope="session")
def shared_devserver() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def devserver(shared_devserver: DevServer) -> DevServer:
    shared_devserver.faults.clear()
    shared_devserver.clear()
    return shared_devserver
