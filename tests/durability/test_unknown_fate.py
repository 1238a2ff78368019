"""A request that nobody answered is settled by reading a real server back, however late that server shows things."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workplace import INGESTION, Workplace, langfuse, otel
from tracebridge import Tracer
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

LAG_S = 0.1
TIMEOUT_S = 0.5
LATE_LAG_S = 0.7
"""The lag of a backend that stores a request half a second after it was given up."""
SPANS = 4

ROUTES = dict(zip(("langfuse", "otel"), INGESTION, strict=True))


def fault(sink: str, **what: object) -> Fault:
    return Fault(route=ROUTES[sink], **what)  # type: ignore[arg-type]


UNANSWERED: dict[str, Callable[[str], list[Fault]]] = {
    "stored, then reset": lambda sink: [fault(sink, reset="after", first=1)],
    "reset before it was stored": lambda sink: [fault(sink, reset="before", first=1)],
    "stored, and the answer cut off": lambda sink: [fault(sink, truncate=True, first=1)],
    "stored after the time-out": lambda sink: [fault(sink, latency_s=2 * TIMEOUT_S, first=1)],
    "stored, reset, and shown out of order": lambda sink: [
        fault(sink, reset="after", visibility_lag_s=0.9 * LAG_S, first=1)
    ],
    "stored, reset, and shown long after the lag, like everything": lambda sink: [
        fault(sink, reset="after", visibility_lag_s=15 * LAG_S, first=1),
        fault(sink, visibility_lag_s=15 * LAG_S, first=6),
    ],
}


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture(params=["langfuse", "otel"])
def sink(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def workplace_at(folder: Path, server: DevServer, sink: str, lag_s: float) -> Workplace:
    reader = {"type": "jaeger", "url": server.url, "visibility_lag": lag_s}
    settings = {
        "langfuse": langfuse(server, visibility_lag=lag_s, timeout=TIMEOUT_S),
        "otel": otel(server, timeout=TIMEOUT_S, reader=reader),
    }
    return Workplace(folder, {sink: settings[sink]})


@pytest.fixture
def workplace(tmp_path: Path, server: DevServer, sink: str) -> Workplace:
    server.clear()
    return workplace_at(tmp_path / "here", server, sink, LAG_S)


def record(tracer: Tracer, session_id: str) -> None:
    with tracer.trace_session(session_id) as session, tracer.trace_turn(session, user_input="hello"):
        with session.llm_call(model="m", messages=[]) as call:
            call.finish("hi")
        session.log_thinking("hm")


def shown(workplace: Workplace, sink: str) -> Counter[tuple[str, str]]:
    return Counter((span.session_id, span.span_id) for span in workplace.observed(sink))


@pytest.mark.parametrize("what", UNANSWERED)
def test_a_request_without_an_answer_is_stored_once_in_the_end(
    tmp_path: Path, server: DevServer, sink: str, what: str
) -> None:
    server.clear()
    lag_s = LATE_LAG_S if what == "stored after the time-out" else LAG_S
    workplace = workplace_at(tmp_path / "here", server, sink, lag_s)
    server.faults.add(*UNANSWERED[what](sink))
    tracer = workplace.tracer()
    sessions = 0
    deadline = time.monotonic() + 30
    left = 1
    # life goes on: what comes later tells what became of the earlier
    while left or sessions < 3:
        assert time.monotonic() < deadline, f"{left} events are left"
        record(tracer, f"session-{sessions}")
        sessions += 1
        left = tracer.flush(3 * lag_s)
    tracer.shutdown()
    while len(stored := shown(workplace, sink)) < sessions * SPANS:
        assert time.monotonic() < deadline, f"only {len(stored)} spans show"
        time.sleep(LAG_S)
    assert len(stored) == sessions * SPANS
    assert set(stored.values()) == {1}
    assert server.faults.struck[0] == 1
    assert "repeats" not in workplace.call("status").stdout
