"""What is delivered while the agent runs is what a backfill of its journal gives, and no sink holds another up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.acceptance.agent import run_full_agent, run_random_agent
from tests.examples import examples
from tests.waiting import until
from tests.workplace import (
    INGESTION,
    Workplace,
    both,
    environment,
    event_counts,
    journal_events,
    langfuse,
    restored,
)
from tracebridge.devserver import DevServer
from tracebridge.span import Span
from tracebridge.testing import Fault
from tracebridge.validation import compare

LANGFUSE_ROUTE, _ = INGESTION
SINKS = ("langfuse", "otel")
FLUSH_S = 20

AGENT = """
import sys, tracebridge
tracebridge.configure(sys.argv[1])
with tracebridge.trace_session("from-a-process") as session:
    for number in range(20):
        with tracebridge.trace_turn(session, user_input=number) as turn:
            with session.llm_call(model="m", messages=[number]) as call:
                call.finish(number)
"""


def assert_same_spans(live: list[Span], replayed: list[Span]) -> None:
    comparison = compare(live, replayed, ())
    assert comparison.findings == ()
    assert comparison.equal == len(live) == len(replayed) > 0
    assert {span.fingerprint for span in live} == {span.fingerprint for span in replayed}


def replay(workplace: Workplace, folder: Path, server: DevServer) -> Workplace:
    """Move a workplace's journal elsewhere, and backfill it from there into another backend."""
    moved = folder / "moved"
    moved.mkdir(parents=True)
    for session in workplace.trace_dir.glob("session-*"):
        shutil.move(session, moved / session.name)
    other = Workplace(folder / "there", both(server))
    other.backfill(moved)
    return other


def test_what_was_fed_live_and_what_was_backfilled_read_back_equal_span_for_span(
    workplace: Workplace, second_devserver: DevServer, tmp_path: Path
) -> None:
    tracer = workplace.tracer()
    run_full_agent(tracer, "full/é 1")
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()
    recorded = journal_events(workplace.trace_dir)
    for verdict in workplace.verdicts().values():
        assert (verdict["exit_code"], verdict["sessions"]) == (0, 1)

    replayed = replay(workplace, tmp_path, second_devserver)

    for sink in SINKS:
        live = workplace.observed(sink)
        assert_same_spans(live, replayed.observed(sink))
        assert restored(live) == recorded


def test_a_sub_agents_turn_reads_back_as_a_child_of_the_tool_call_it_ran_in(workplace: Workplace) -> None:
    tracer = workplace.tracer()
    run_full_agent(tracer, "nested")
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()
    for sink in SINKS:
        spans = workplace.observed(sink)
        (delegate,) = (span for span in spans if span.name == "delegate")
        (inner,) = (span for span in spans if span.kind == "turn" and span.input == "research")
        assert (inner.parent_id, inner.trace_id) == (delegate.span_id, delegate.trace_id)
        (failed,) = (span for span in spans if span.kind == "llm" and span.status == "error")
        assert failed.error is not None
        assert failed.error.message == "503: try again"
        assert {span.tags for span in spans} == {("beta", "a,b", "ü")}


@settings(max_examples=examples(3), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_agents_read_back_equal_whether_fed_live_or_backfilled(
    seed: int, devserver: DevServer, second_devserver: DevServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    devserver.clear()
    second_devserver.clear()
    folder = tmp_path_factory.mktemp("random")
    workplace = Workplace(folder / "here", both(devserver))
    tracer = workplace.tracer()
    for number in range(2):
        run_random_agent(tracer, f"random-{number}", seed + number)
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()
    recorded = journal_events(workplace.trace_dir)

    replayed = replay(workplace, folder, second_devserver)

    for sink in SINKS:
        live = workplace.observed(sink)
        assert_same_spans(live, replayed.observed(sink))
        assert restored(live) == recorded


def test_a_process_that_ends_without_a_word_has_delivered_what_it_recorded(
    workplace: Workplace, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", AGENT, str(workplace.config)], cwd=tmp_path, env=environment(), check=True)
    for sink in SINKS:
        assert len(workplace.observed(sink)) == 41


def test_a_sink_that_is_switched_on_later_gets_the_earlier_sessions_too(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here")
    tracer = workplace.tracer()
    run_random_agent(tracer, "before", 1)
    tracer.shutdown()

    workplace.configure(both(devserver))
    tracer = workplace.tracer()
    run_random_agent(tracer, "after", 2)
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()

    assert set(journal_events(workplace.trace_dir)) == {"before", "after"}
    for sink in SINKS:
        assert restored(workplace.observed(sink)) == journal_events(workplace.trace_dir)


def test_a_sink_that_is_pointed_at_another_backend_delivers_everything_there(
    tmp_path: Path, devserver: DevServer, second_devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    for server in (devserver, second_devserver):
        workplace.configure({"langfuse": langfuse(server)})
        tracer = workplace.tracer()
        run_random_agent(tracer, f"for-{server.url.rpartition(':')[2]}", 3)
        assert tracer.flush(FLUSH_S) == 0
        tracer.shutdown()
    assert restored(workplace.observed("langfuse")) == journal_events(workplace.trace_dir)


def test_an_outage_of_one_backend_loses_and_doubles_nothing_and_does_not_hold_up_the_other(
    workplace: Workplace, devserver: DevServer
) -> None:
    devserver.faults.add(Fault(route=LANGFUSE_ROUTE, status=503))
    tracer = workplace.tracer()
    run_full_agent(tracer, "in-the-outage")
    counts = event_counts(workplace.trace_dir)
    spans = sum(counts[kind] for kind in ("session.start", "turn.start", "llm.request", "tool.call", "thinking"))

    until(lambda: len(workplace.observed("otel")) == spans, "the other sink has everything during the outage")
    until(lambda: devserver.requests.get(LANGFUSE_ROUTE, 0) > 0, "LangFuse was tried")
    assert workplace.observed("langfuse") == []
    assert tracer.flush(0.1) > 0

    devserver.faults.clear()
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()
    for verdict in workplace.verdicts().values():
        assert (verdict["exit_code"], verdict["equal"], verdict["observed"]) == (0, spans, spans)


def test_a_request_whose_answer_was_lost_is_not_sent_again_once_it_shows(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    devserver.faults.add(Fault(route=LANGFUSE_ROUTE, reset="after", first=1))
    tracer = workplace.tracer()
    run_random_agent(tracer, "stored-but-not-answered", 4)
    assert tracer.flush(FLUSH_S) == 0
    tracer.shutdown()
    verdict = workplace.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["counts"]) == (0, {})
