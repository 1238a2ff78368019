"""Through a real Collector with a queue on disk to real Jaegers: what it has taken over survives its death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.servers.collector import running_collector
from tests.servers.jaeger import Jaeger, running_jaeger
from tests.waiting import until
from tests.workplace import Workplace, journal_events, restored
from tracebridge import trace_session, trace_turn
from tracebridge.recording.tracer import Tracer

pytestmark = pytest.mark.real_server

SESSIONS = 20
TURNS = 5


def converse(tracer: Tracer, first: int, last: int) -> None:
    for number in range(first, last):
        with trace_session(f"s-{number}", tracer=tracer) as session:
            for turn in range(TURNS):
                with trace_turn(session, user_input=f"question {turn}") as asked:
                    session.log_llm_request(model="m", messages=[{"role": "user", "content": "x" * 500}])
                    session.log_llm_response(model="m", content=f"answer {turn}")
                    asked.output = f"answer {turn}"


def arrived(place: Workplace) -> dict[str, list[dict[str, Any]]]:
    """The events in the backend, by session. A Collector that was killed sends again what it was just sending."""
    spans = {(span.trace_id, span.span_id): span for span in place.observed("otel")}
    return restored(spans.values())


def through(collector_url: str, jaeger: Jaeger) -> dict[str, Any]:
    """An otel sink that sends to the Collector and reads back from what is behind it."""
    return {**jaeger.section(), "endpoint": collector_url}


def test_a_collector_that_is_killed_and_started_again_loses_nothing_for_either_backend(tmp_path: Path) -> None:
    with (
        running_jaeger(tmp_path / "one") as one,
        running_jaeger(tmp_path / "two") as two,
        running_collector(tmp_path / "collector", [one.otlp_http, two.otlp_http]) as collector,
    ):
        place = Workplace(tmp_path / "place", {"otel": through(collector.otlp_http, one)})
        # one backend is away, so what is sent now is in the Collector's queue, and nowhere else
        two.server.kill()
        tracer = place.tracer()
        converse(tracer, 0, SESSIONS // 2)
        assert tracer.flush(30.0) == 0
        collector.server.kill()
        converse(tracer, SESSIONS // 2, SESSIONS)
        two.server.start()
        collector.server.start()
        assert tracer.flush(30.0) == 0
        tracer.shutdown()
        recorded = journal_events(place.trace_dir)
        assert len(recorded) == SESSIONS
        for backend in (one, two):
            place.configure({"otel": through(collector.otlp_http, backend)})
            until(lambda: arrived(place) == recorded, "every event is in the backend", 40.0)
