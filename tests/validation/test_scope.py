"""What is compared, what it costs, and what is known of it afterwards."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.rig import write_session
from tests.workplace import Workplace, both, delete_stored
from tracebridge.delivery.state import State
from tracebridge.devserver import DevServer
from tracebridge.journal import layout
from tracebridge.validation import Scope, Validator, Verdict, validator

OBSERVATIONS = "GET /api/public/v2/observations"
TRACES = "GET /api/v3/traces"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The development backend shows everything at once."""
    monkeypatch.setattr(validator, "LEAST_PATIENCE_S", 0.0)


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer() as running:
        yield running


@pytest.fixture
def workplace(tmp_path: Path, server: DevServer) -> Workplace:
    return Workplace(tmp_path / "here", both(server), delivery="external")


def write(workplace: Workplace, *names: str, at: str = "2026-02-06T22:10:{second:02}Z", turns: int = 3) -> None:
    for second, name in enumerate(names):
        write_session(workplace.trace_dir, name, turns=turns, at=at.format(second=second % 60))


def ship(workplace: Workplace) -> None:
    told = workplace.call("ship", "--patience", "30")
    assert told.returncode == 0, told.stdout + told.stderr


def validate(workplace: Workplace, sink: str = "langfuse", *, resend: bool = False, **scope: Any) -> Verdict:
    settings = workplace.settings.sink(sink)
    assert settings is not None
    one = Validator(settings, workplace.trace_dir)
    try:
        return one.validate(Scope(**scope), resend=resend)
    finally:
        one.close()


@pytest.mark.parametrize(("sink", "route", "most"), [("langfuse", OBSERVATIONS, 3), ("otel", TRACES, 30)])
def test_a_hundred_clean_sessions_cost_a_few_requests(
    workplace: Workplace, server: DevServer, sink: str, route: str, most: int
) -> None:
    """A page holds 1,000 observations of LangFuse, or 200 traces of Jaeger."""
    write(workplace, *(f"s{number:03}" for number in range(100)))
    ship(workplace)
    before = server.requests.get(route, 0)
    verdict = validate(workplace, sink)
    assert (verdict.exit_code, verdict.sessions, verdict.expected) == (0, 100, 700)
    assert server.requests[route] - before <= most


def test_only_the_session_that_is_not_clean_is_asked_for_by_itself(workplace: Workplace, server: DevServer) -> None:
    write(workplace, *(f"s{number:02}" for number in range(20)))
    ship(workplace)
    span = next(span for span in workplace.observed("langfuse") if span.session_id == "s07")
    delete_stored(server, "langfuse", span)
    before = server.requests[OBSERVATIONS]
    verdict = validate(workplace)
    assert (verdict.counts, verdict.sessions) == ({"missing": 1}, 20)
    # the last two once more if the first look was too early
    assert server.requests[OBSERVATIONS] - before <= 5, "the window, the session, and the trace of what is missing"


def test_sessions_among_many_of_others_are_asked_for_one_by_one_rather_than_reading_all(
    workplace: Workplace, server: DevServer, tmp_path: Path
) -> None:
    others = Workplace(tmp_path / "others", both(server), delivery="external")
    write(others, *(f"theirs-{number:03}" for number in range(60)), turns=20)
    ship(others)
    write(workplace, *(f"s{number}" for number in range(6)))
    ship(workplace)
    verdict = validate(workplace)
    assert (verdict.exit_code, verdict.sessions, verdict.counts) == (0, 6, {})


def test_a_time_names_sessions_that_went_on_after_it_and_began_before_it(workplace: Workplace) -> None:
    for day in range(1, 6):
        write(workplace, f"day-{day}", at=f"2026-02-0{day}T12:00:00Z")
    ship(workplace)
    day_ns = 86_400 * 10**9
    second = 1_769_990_400 * 10**9  # 2026-02-02
    verdict = validate(workplace, since_ns=second, until_ns=second + 2 * day_ns)
    assert (verdict.sessions, verdict.drawn_from) == (2, 2)
    assert verdict.exit_code == 0
    assert validate(workplace, since_ns=second + 30 * day_ns).exit_code == 2, "having compared nothing is no pass"


def test_an_environment_names_its_sessions(workplace: Workplace) -> None:
    tracer = workplace.tracer()
    for name, environment in (("a", "production"), ("b", "staging"), ("c", "")):
        with tracer.trace_session(name, environment=environment):
            pass
    tracer.shutdown()
    ship(workplace)
    assert validate(workplace, environment="production").sessions == 1
    assert validate(workplace).sessions == 3


def test_a_sample_says_of_how_many_it_is_and_what_it_proves(workplace: Workplace) -> None:
    write(workplace, *(f"s{number}" for number in range(40)), turns=1)
    ship(workplace)
    verdict = validate(workplace, sample=0.25)
    assert 0 < verdict.sessions < 40
    assert verdict.drawn_from == 40
    assert 0 < verdict.undetected <= 40 - verdict.sessions
    told = workplace.call("validate", "--sink", "langfuse", "--sample", "25%")
    assert f"at most {verdict.undetected} sessions of them all" in " ".join(told.stdout.split())
    assert workplace.call("validate", "--sink", "langfuse").stdout.count("confidence") == 0


def test_what_was_clean_and_has_not_changed_is_not_compared_again_with_since_last(
    workplace: Workplace, server: DevServer
) -> None:
    write(workplace, "a", "b", "c")
    ship(workplace)
    validate(workplace)
    before = server.requests[OBSERVATIONS]
    again = validate(workplace, since_last=True)
    assert (again.exit_code, again.sessions, again.known_clean) == (0, 0, 3)
    assert server.requests[OBSERVATIONS] == before

    write_session(workplace.trace_dir, "b", turns=1, run_id="run-2")
    ship(workplace)
    again = validate(workplace, since_last=True)
    assert (again.exit_code, again.sessions, again.known_clean) == (0, 1, 2)
    narrower = both(server)["langfuse"] | {"policy": {"include_thinking": False}}
    workplace.configure({"langfuse": narrower}, delivery="external")
    assert validate(workplace, since_last=True).sessions == 3, "under other rules nothing is known"


def test_a_journal_that_was_changed_in_its_place_is_compared_again_with_since_last(
    workplace: Workplace, server: DevServer
) -> None:
    write(workplace, "a", "b")
    ship(workplace)
    assert validate(workplace).exit_code == 0
    journal = layout.events_file(layout.session_folder(workplace.trace_dir, "b"))
    journal.write_text(journal.read_text("utf-8").replace("answer", "******"), "utf-8")
    again = validate(workplace, since_last=True)
    assert (again.exit_code, again.sessions, again.known_clean) == (1, 1, 1)


@pytest.mark.parametrize("others", [0, 5], ids=["alone", "among others"])
def test_what_a_journal_that_was_cut_does_not_tell_any_more_is_extra_whenever_it_was(
    workplace: Workplace, others: int
) -> None:
    write(workplace, *(f"s{number}" for number in range(others)))
    journal = write_session(workplace.trace_dir, "cut", turns=1, at="2026-02-06T22:10:00Z")
    size = journal.stat().st_size
    write_session(workplace.trace_dir, "cut", turns=1, at="2026-02-06T23:50:00Z", run_id="run-2")
    ship(workplace)
    os.truncate(journal, size)
    for sink, verdict in workplace.verdicts().items():
        assert (verdict["exit_code"], verdict["counts"]) == (1, {"extra": 3}), sink


def test_what_was_found_defective_is_compared_again_with_since_last(workplace: Workplace, server: DevServer) -> None:
    write(workplace, "a", "b")
    ship(workplace)
    delete_stored(server, "langfuse", next(s for s in workplace.observed("langfuse") if s.session_id == "a"))
    assert validate(workplace).counts == {"missing": 1}
    again = validate(workplace, since_last=True)
    assert (again.exit_code, again.sessions, again.known_clean) == (1, 1, 1)


def test_a_validation_that_was_interrupted_goes_on_where_it_stopped(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracebridge.validation.windows.WINDOW_BYTES", 1)
    write(workplace, *"abcde")
    ship(workplace)
    settings = workplace.settings.sink("langfuse")
    assert settings is not None
    one = Validator(settings, workplace.trace_dir)

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.validate(progress=stop)
    one.close()
    rest = validate(workplace, since_last=True)
    assert (rest.exit_code, rest.sessions + rest.known_clean) == (0, 5)
    assert rest.known_clean >= 2
    state = State(layout.state_file(workplace.trace_dir))
    interrupted = state.evidence.validations(state.target("langfuse", settings.endpoint))[-1]
    state.close()
    assert (interrupted.ended_ns, interrupted.summary) == (0, ""), "it never came to a verdict"


def test_each_finding_tells_where_it_was_recorded_where_to_look_and_what_to_do(
    workplace: Workplace, server: DevServer
) -> None:
    write(workplace, "a")
    ship(workplace)
    span = next(span for span in workplace.observed("langfuse") if span.kind == "tool" and span.turn == 2)
    delete_stored(server, "langfuse", span)
    (finding,) = validate(workplace).findings
    file, _, line = finding.journal.rpartition(":")
    recorded = json.loads(Path(file).read_text("utf-8").splitlines()[int(line) - 1])
    assert (recorded["event_type"], recorded["turn"]) == ("tool.call", 2)
    assert finding.link == f"{server.url}/trace/{span.trace_id}"
    assert finding.command == "tracebridge validate --sink langfuse --session a --resend"


def test_a_line_is_found_behind_broken_and_empty_ones(workplace: Workplace, server: DevServer) -> None:
    write(workplace, "a")
    events = layout.events_file(layout.session_folder(workplace.trace_dir, "a"))
    lines = events.read_text("utf-8").splitlines(keepends=True)
    events.write_text("".join([lines[0], "\n", "half a li\n", *lines[1:]]), "utf-8")
    ship(workplace)
    span = next(span for span in workplace.observed("langfuse") if span.kind == "turn" and span.turn == 1)
    delete_stored(server, "langfuse", span)
    (finding,) = validate(workplace).findings
    assert finding.journal.endswith(":4")


@pytest.mark.parametrize("sink", ["langfuse", "otel"])
def test_what_a_backend_took_and_lost_is_sent_again_once_and_accounted_for(
    workplace: Workplace, server: DevServer, sink: str
) -> None:
    write(workplace, "a", "b")
    ship(workplace)
    lost = [span for span in workplace.observed(sink) if span.session_id == "a" and span.kind != "tool"]
    for span in lost:
        delete_stored(server, "otlp" if sink == "otel" else sink, span)
    first = validate(workplace, sink, session_id="a", resend=True)
    assert (first.counts, first.resent) == ({"missing": len(lost)}, len(lost))
    second = validate(workplace, sink, session_id="a", resend=True)
    assert second.resent == 0, "they are on their way already"
    ship(workplace)
    assert validate(workplace, sink).exit_code == 0
    held = Counter((span.trace_id, span.span_id) for span in workplace.observed(sink))
    assert set(held.values()) == {1}
    told = json.loads(workplace.call("status", "--json").stdout)["sinks"]
    (events,) = [one["events"] for one in told if one["name"] == sink]
    assert (events["confirmed"], events["dead"], events["unaccounted"]) == (28, 0, 0)


def test_what_the_policy_left_out_is_told_and_no_finding(workplace: Workplace, server: DevServer) -> None:
    narrow = {"sample_rate": 0.5, "include_messages": False}
    workplace.configure({"langfuse": both(server)["langfuse"] | {"policy": narrow}}, delivery="external")
    write(workplace, *(f"s{number}" for number in range(20)), turns=1)
    ship(workplace)
    verdict = validate(workplace)
    assert verdict.exit_code == 0
    assert verdict.policy["sessions sampled out"] == 20 - verdict.sessions
    assert verdict.policy["events narrowed"] > 0


def test_counts_are_exact_where_examples_are_not_all_kept(
    workplace: Workplace, server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracebridge.validation.verdict.MOST_EXAMPLES", 3)
    write(workplace, "a")
    ship(workplace)
    for span in workplace.observed("langfuse"):
        delete_stored(server, "langfuse", span)
    verdict = validate(workplace)
    assert (verdict.counts, len(verdict.findings)) == ({"missing": 7}, 3)


@pytest.mark.parametrize("share", ["0", "101%", "many", "-5%"])
def test_a_share_that_is_none_is_refused(workplace: Workplace, share: str) -> None:
    told = workplace.run("validate", f"--sample={share}")
    assert told.returncode == 2
    assert "is no share: write 5% or 0.05" in told.stderr


def test_prices_and_token_counts_of_the_servers_own_are_counted_and_no_difference(workplace: Workplace) -> None:
    tracer = workplace.tracer()
    with tracer.trace_session("s") as session, tracer.trace_turn(session):
        for tokens in ({"input": 10, "output": 5}, None):
            with session.llm_call(model="gpt-4o", messages=[{"role": "user", "content": "hi"}]) as call:
                call.finish("hello", tokens=tokens)
    tracer.shutdown()
    ship(workplace)
    verdict = validate(workplace)
    assert (verdict.exit_code, verdict.server_computed) == (0, {"cost": 2, "usage": 1})
    assert validate(workplace, "otel").server_computed == {}


def test_the_history_tells_what_was_asked_for_and_nothing_else(workplace: Workplace) -> None:
    write(workplace, "a")
    ship(workplace)
    workplace.call("validate", "--sink", "langfuse")
    workplace.call("validate", "--sink", "langfuse", "--session", "a", "--sample", "100%")
    told = json.loads(workplace.call("validations", "--json").stdout)["validations"]
    assert [one["scope"] for one in told] == [{"session_id": "a"}, {}]
