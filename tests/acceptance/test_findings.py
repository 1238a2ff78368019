"""`validate` finds what a backend lost, doubled or changed, and says what it could not compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest

from tests.workplace import (
    INGESTION,
    Workplace,
    both,
    change_observation,
    change_otlp_span,
    delete_stored,
    langfuse,
)
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

LANGFUSE_ROUTE, OTLP_ROUTE = INGESTION
SPANS = 7


def record(workplace: Workplace, session_id: str = "s") -> None:
    """Record a session of two turns with an LLM call and a tool call each, and deliver nothing of it yet."""
    tracer = workplace.tracer()
    with tracer.trace_session(session_id, user_id="u") as session:
        for number in (1, 2):
            with tracer.trace_turn(session, user_input=f"question {number}") as turn:
                with session.llm_call(model="m", messages=[{"role": "user", "content": "?"}]) as call:
                    call.finish(f"answer {number}", tokens={"input": 3, "output": 4})
                with session.tool_call("search", {"q": number}) as call:
                    call.finish("found")
                turn.output = f"answer {number}"
    tracer.shutdown()


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    """A folder in which the agent only writes, and commands deliver."""
    return Workplace(tmp_path / "here", both(devserver), delivery="external")


@pytest.fixture
def delivered(workplace: Workplace) -> Workplace:
    """Both backends have all of one session."""
    record(workplace)
    assert workplace.call("ship").returncode == 0
    return workplace


def test_what_arrived_whole_is_clean(delivered: Workplace) -> None:
    ran = delivered.call("validate")
    assert ran.returncode == 0
    assert [line for line in ran.stdout.splitlines() if "CLEAN" in line]
    assert {sink: verdict["equal"] for sink, verdict in delivered.verdicts().items()} == {
        "langfuse": SPANS,
        "otel": SPANS,
    }


def test_a_changed_observation_is_found_and_the_field_named(delivered: Workplace, devserver: DevServer) -> None:
    span = next(span for span in delivered.observed("langfuse") if span.output == "answer 2")
    change_observation(devserver, span, output="answer 3")
    ran = delivered.call("validate")
    assert ran.returncode == 1
    assert "langfuse: FINDINGS" in ran.stdout
    assert "otel: CLEAN" in ran.stdout
    (finding,) = delivered.verdicts("--sink", "langfuse")["langfuse"]["findings"]
    assert (finding["kind"], finding["span_id"]) == ("different", span.span_id)
    (difference,) = finding["differences"]
    assert difference == {"field": "output", "expected": "answer 2", "observed": "answer 3"}


def test_a_changed_span_of_the_other_backend_is_found_and_the_field_named(
    delivered: Workplace, devserver: DevServer
) -> None:
    span = next(span for span in delivered.observed("otel") if span.kind == "tool")
    change_otlp_span(devserver, span, status={"code": 2})
    (finding,) = delivered.verdicts("--sink", "otel")["otel"]["findings"]
    assert (finding["kind"], finding["span_id"]) == ("different", span.span_id)
    assert "status" in {difference["field"] for difference in finding["differences"]}


@pytest.mark.parametrize(
    ("sink", "store"), [("langfuse", "langfuse"), pytest.param("otel", "otlp", marks=pytest.mark.slow)]
)
def test_a_deleted_span_is_missing(delivered: Workplace, devserver: DevServer, sink: str, store: str) -> None:
    settings = {"langfuse": langfuse(devserver)} if sink == "langfuse" else {"otel": both(devserver)["otel"]}
    span = next(span for span in delivered.observed(sink) if span.kind == "llm")
    delete_stored(devserver, store, span)
    delivered.configure(settings)
    verdict = delivered.verdicts("--session", "s")[sink]
    assert (verdict["exit_code"], verdict["counts"]) == (1, {"missing": 1})
    assert verdict["findings"][0]["span_id"] == span.span_id
    assert (verdict["expected"], verdict["observed"]) == (SPANS, SPANS - 1)


@pytest.mark.parametrize(("sink", "route"), [("langfuse", LANGFUSE_ROUTE), ("otel", OTLP_ROUTE)])
def test_what_a_backend_stored_twice_is_a_duplicate(
    workplace: Workplace, devserver: DevServer, sink: str, route: str
) -> None:
    devserver.faults.add(Fault(route=route, duplicate=True))
    record(workplace)
    assert workplace.call("ship").returncode == 0
    verdict = workplace.verdicts("--sink", sink)[sink]
    assert (verdict["exit_code"], verdict["counts"]) == (1, {"duplicate": SPANS})


def test_a_journal_that_was_appended_to_itself_has_nothing_missing(workplace: Workplace) -> None:
    record(workplace)
    journal = workplace.trace_dir / "session-s" / "events.jsonl"
    journal.write_bytes(journal.read_bytes() * 2)
    assert workplace.call("ship").returncode == 0
    verdicts = workplace.verdicts()
    assert {sink: (verdict["exit_code"], verdict["counts"]) for sink, verdict in verdicts.items()} == {
        "langfuse": (0, {}),
        "otel": (0, {}),
    }
    shown = verdicts["langfuse"]
    assert (shown["expected"], shown["equal"]) == (2 * SPANS, 2 * SPANS)
    assert shown["losses"]["recorded-more-than-once"] == SPANS


def test_copies_that_were_sent_under_an_earlier_policy_are_each_as_they_were_sent(
    workplace: Workplace, devserver: DevServer
) -> None:
    record(workplace)
    journal = workplace.trace_dir / "session-s" / "events.jsonl"
    journal.write_bytes(journal.read_bytes() * 2)
    assert workplace.call("ship").returncode == 0
    narrower = {name: sink | {"policy": {"include_messages": False}} for name, sink in both(devserver).items()}
    workplace.configure(narrower, delivery="external")
    verdicts = workplace.verdicts()
    assert {sink: (verdict["exit_code"], verdict["counts"]) for sink, verdict in verdicts.items()} == {
        "langfuse": (0, {}),
        "otel": (0, {}),
    }


def test_what_a_backend_accepted_and_dropped_is_missing(workplace: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=LANGFUSE_ROUTE, drop=True))
    record(workplace)
    assert workplace.call("ship").returncode == 0
    verdict = workplace.verdicts("--sink", "langfuse")["langfuse"]
    assert (verdict["exit_code"], verdict["counts"]) == (1, {"missing": SPANS})


def test_what_shows_only_after_a_while_is_waited_for(workplace: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=LANGFUSE_ROUTE, visibility_lag_s=1.5))
    record(workplace)
    assert workplace.call("ship").returncode == 0
    assert workplace.verdicts("--sink", "langfuse")["langfuse"]["exit_code"] == 0


def test_a_span_that_lost_its_session_is_different_and_not_missing(delivered: Workplace, devserver: DevServer) -> None:
    span = next(span for span in delivered.observed("langfuse") if span.kind == "turn")
    change_observation(devserver, span, sessionId="elsewhere")
    verdict = delivered.verdicts("--sink", "langfuse")["langfuse"]
    assert verdict["counts"] == {"different": 1}
    assert [difference["field"] for difference in verdict["findings"][0]["differences"]] == ["session_id"]


def test_another_services_span_in_one_of_our_traces_is_foreign_and_no_defect(
    delivered: Workplace, devserver: DevServer
) -> None:
    turn = next(span for span in delivered.observed("otel") if span.kind == "turn")
    span = {"traceId": turn.trace_id, "spanId": "f" * 16, "parentSpanId": turn.span_id, "name": "GET /orders"}
    span |= {"startTimeUnixNano": str(turn.start_ns), "endTimeUnixNano": str(turn.end_ns)}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    export = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    httpx.post(f"{devserver.url}/v1/traces", json=export).raise_for_status()
    verdict = delivered.verdicts("--sink", "otel")["otel"]
    assert (verdict["exit_code"], verdict["counts"]) == (0, {"foreign": 1})


def test_a_backend_that_is_away_makes_no_verdict_and_is_named(tmp_path: Path) -> None:
    with DevServer() as server:
        workplace = Workplace(tmp_path / "here", both(server), delivery="external")
        record(workplace)
        record(workplace, "t")
        assert workplace.call("ship").returncode == 0
    for sink, verdict in workplace.verdicts().items():
        assert verdict["exit_code"] == 2, sink
        assert verdict["sessions"] == 0
        assert [uncompared["session_id"] for uncompared in verdict["uncompared"]] == ["s", "t"]
        assert all("backend cannot be read" in uncompared["reason"] for uncompared in verdict["uncompared"])


def test_nothing_that_is_owed_makes_no_verdict(workplace: Workplace) -> None:
    for verdict in workplace.verdicts().values():
        assert (verdict["exit_code"], verdict["sessions"]) == (2, 0)
        assert [entry["reason"] for entry in verdict["uncompared"]] == ["no session is owed to this sink"]


def test_a_session_that_is_still_open_is_named_and_the_others_are_compared(delivered: Workplace) -> None:
    tracer = delivered.tracer()
    with tracer.trace_session("open") as session, tracer.trace_turn(session, user_input="?"):
        verdicts = delivered.verdicts()
    tracer.shutdown()
    for verdict in verdicts.values():
        assert (verdict["exit_code"], verdict["sessions"], verdict["equal"]) == (2, 1, SPANS)
        ((session_id, reason),) = ((entry["session_id"], entry["reason"]) for entry in verdict["uncompared"])
        assert session_id == "open"
        assert "still open" in reason


def test_a_session_that_was_not_delivered_is_named(workplace: Workplace) -> None:
    record(workplace)
    ran = workplace.call("validate", "--sink", "langfuse", "--json")
    assert ran.returncode == 2
    (verdict,) = json.loads(ran.stdout)
    assert [(entry["session_id"], "tracebridge ship" in entry["reason"]) for entry in verdict["uncompared"]] == [
        ("s", True)
    ]


def test_a_session_that_does_not_exist_is_named(delivered: Workplace) -> None:
    for verdict in delivered.verdicts("--session", "no-such").values():
        assert verdict["exit_code"] == 2
        assert [entry["session_id"] for entry in verdict["uncompared"]] == ["no-such"]


def test_a_session_of_which_a_part_is_in_old_traces_and_a_part_in_new_ones_is_compared_as_a_whole(
    workplace: Workplace, tmp_path: Path
) -> None:
    record(workplace)
    old = tmp_path / "old"
    shutil.move(workplace.trace_dir / "session-s", old / "session-s")
    workplace.backfill(old)
    record(workplace)
    assert workplace.call("ship").returncode == 0
    for verdict in workplace.verdicts().values():
        assert (verdict["exit_code"], verdict["counts"]) == (0, {})
        assert verdict["expected"] == 2 * SPANS
