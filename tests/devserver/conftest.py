"""Clients of the development backend."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tracebridge.devserver import DevServer


@pytest.fixture(scope="module")
def running() -> Iterator[DevServer]:
    """One backend for a module: stopping takes longer than most of its tests."""
    with DevServer(grpc_port=0) as server:
        yield server


@pytest.fixture
def devserver(running: DevServer) -> DevServer:
    """An empty backend."""
    running.clear()
    return running


@pytest.fixture
def client(devserver: DevServer) -> Iterator[httpx.Client]:
    """An HTTP client with the right keys."""
    keys = (devserver.public_key, devserver.secret_key)
    # no TLS on loopback: reading the certificates takes longer than the test
    with httpx.Client(base_url=devserver.url, auth=keys, timeout=5, verify=False) as client:
        yield client


@pytest.fixture
def anonymous(devserver: DevServer) -> Iterator[httpx.Client]:
    """An HTTP client without keys."""
    with httpx.Client(base_url=devserver.url, timeout=5, verify=False) as client:
        yield client
