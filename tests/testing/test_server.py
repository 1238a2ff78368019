"""A server of one's own behind the fault injector, seen at the socket."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tracebridge.testing import Fault, Faults
from tracebridge.testing.server import FaultyServer


class Kept:
    """An application that keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.routes = [Route("/events/{name}", self._take, methods=["POST"])]
        self.app = Starlette(routes=self.routes)

    async def _take(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return PlainTextResponse("taken")


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def server(kept: Kept) -> Iterator[FaultyServer]:
    with FaultyServer(kept.app, Faults(), kept.routes) as server:
        yield server


def test_what_no_fault_strikes_reaches_the_application_and_is_counted_by_route(
    kept: Kept, server: FaultyServer
) -> None:
    assert [httpx.post(f"{server.url}/events/{name}", content=b"x").text for name in "ab"] == ["taken", "taken"]
    assert kept.bodies == [b"x", b"x"]
    assert server.requests == {"POST /events/{name}": 2}


def test_a_reset_after_storing_gives_no_answer_and_stores(kept: Kept, server: FaultyServer) -> None:
    server.faults.add(Fault(reset="after", times=1))
    with pytest.raises(httpx.ReadError):
        httpx.post(f"{server.url}/events/a", content=b"x")
    assert kept.bodies == [b"x"]


def test_a_request_that_hangs_is_let_go_when_the_server_ends(kept: Kept) -> None:
    with FaultyServer(kept.app) as server:
        server.faults.add(Fault(hang=True))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/events/a", content=b"x", timeout=0.2)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_fault_may_depend_on_what_a_request_holds(kept: Kept, server: FaultyServer, compressed: bool) -> None:
    server.faults.add(Fault(status=400, body_contains="poison"))
    headers = {"content-encoding": "gzip"} if compressed else {}

    def post(body: bytes) -> int:
        content = gzip.compress(body) if compressed else body
        return httpx.post(f"{server.url}/events/a", content=content, headers=headers).status_code

    assert [post(b"some poison in it"), post(b"none"), post(b"poison")] == [400, 200, 400]
    assert len(kept.bodies) == 1


def test_a_fault_may_depend_on_a_request_s_size(kept: Kept, server: FaultyServer) -> None:
    server.faults.add(Fault(status=413, over_bytes=100))
    assert [httpx.post(f"{server.url}/events/a", content=b"x" * size).status_code for size in (100, 101)] == [200, 413]
    assert kept.bodies == [b"x" * 100], "what was looked into reaches the application whole"
