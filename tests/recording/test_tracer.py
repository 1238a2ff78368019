from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import Tracer
from tracebridge.errors import ConfigurationError
from tracebridge.policy import Policy, keeps_session


def exercise(tracer: Tracer, session_id: Any = "s") -> None:
    """Call everything that an agent may call."""
    with tracer.trace_session(session_id, {"a": 1}) as session, tracer.trace_turn(session, "hi") as turn:
        session.log_llm_request("m", [{"role": "user", "content": "secret"}])
        session.log_llm_response("m", "secret", thinking="thought")
        session.log_tool_call("t")
        session.log_tool_result("t")
        session.log_thinking("thought")
        with session.llm_call("m", ["secret"]) as llm:
            llm.first_token()
            llm.finish("secret")
        with session.tool_call("t", {"text": "secret"}) as tool:
            tool.finish("secret")
        turn.output = "secret"
        session.outcome = "done"


def test_a_mistake_in_the_configuration_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="trace_dirs"):
        Tracer({"agent_trace": {"trace_dirs": "x"}})


def test_a_file_configures_as_a_mapping_does(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"agent_trace:\n  trace_dir: {tmp_path}/traces\n", encoding="utf-8")
    for source in (str(file), file):
        exercise(Tracer(source))
    assert len((tmp_path / "traces" / "session-s" / "events.jsonl").read_bytes().splitlines()) == 2 * 13


def test_settings_that_were_read_already_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = Recording(tmp_path).tracer.settings
    assert Tracer(settings).settings is settings


@pytest.mark.parametrize("settings", [{"enabled": False}, {"sample_rate": 0.0}], ids=["disabled", "sampled out"])
def test_a_session_that_is_not_recorded_does_nothing_and_works(settings: dict[str, Any], tmp_path: Path) -> None:
    recording = Recording(tmp_path, **settings)
    exercise(recording.tracer)
    with recording.session() as session, recording.turn(session) as turn:
        assert (session.run_id, turn.number, turn.trace_id, turn.span_id) == ("", 0, "", "")
    with pytest.raises(KeyError), recording.session() as session, session.tool_call("t"):
        raise KeyError("untouched")
    assert not recording.trace_dir.exists()


def test_sampling_keeps_the_sessions_that_the_policy_keeps(tmp_path: Path) -> None:
    recording = Recording(tmp_path, sample_rate=0.3)
    ids = [f"s{number}" for number in range(60)]
    for session_id in ids:
        with recording.session(session_id):
            pass
    kept = {session_id for session_id in ids if recording.file(session_id).exists()}
    assert kept == {session_id for session_id in ids if keeps_session(Policy(sample_rate=0.3), session_id)}
    assert 0 < len(kept) < 60


def test_what_the_policy_leaves_out_reaches_no_file(tmp_path: Path) -> None:
    recording = Recording(tmp_path, include_messages=False, include_thinking=False)
    exercise(recording.tracer)
    written = b"".join(file.read_bytes() for file in recording.trace_dir.rglob("*") if file.is_file())
    assert b"secret" not in written
    assert b"thought" not in written
    assert recording.of_type("llm.request")[0]["data"] == {
        "model": "m",
        "messages_chars": len("user") + len("secret"),
        "messages_count": 1,
    }


def test_long_texts_are_cut_wherever_they_stand(tmp_path: Path) -> None:
    recording = Recording(tmp_path, max_content_length=50)
    deep = ({"content": ["é" * 51]},)
    with recording.session("s", {"text": "m" * 60}) as session:
        session.log_llm_request("m", deep)
        session.log_thinking("\ud800" + "x" * 100)
        session.log_thinking('"\\' * 24)
    cut = recording.only("llm.request")["data"]["messages"][0]["content"][0]
    assert cut == "é" * 50 + "…[cut 1]"
    surrogate, quotes = (event["data"]["content"] for event in recording.of_type("thinking"))
    assert surrogate == "\\ud800" + "x" * 44 + "…[cut 56]"
    assert quotes == '"\\' * 24
    assert recording.metadata()["metadata"]["text"] == "m" * 50 + "…[cut 10]"


def test_an_event_of_many_short_texts_is_kept_whole(tmp_path: Path) -> None:
    recording = Recording(tmp_path, max_content_length=50)
    messages = [{"role": "user", "content": "x" * 50}] * 1000
    with recording.session() as session:
        session.log_llm_request("m", messages)
    assert recording.only("llm.request")["data"]["messages"] == messages


def test_what_is_no_session_is_reported_and_the_turn_works(tmp_path: Path) -> None:
    recording = Recording(tmp_path, on_error=None)
    with recording.tracer.trace_turn(None, "hi") as turn:  # type: ignore[arg-type]
        turn.output = "x"
        turn.session.log_thinking("nothing")
    assert recording.tracer.trouble.counts == {"tracing: TypeError": 1}


class Unbound:
    """As a lazy object whose subject cannot be had now: it raises whatever it is asked, even for its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("not bound to a request")

    def __str__(self) -> str:
        raise RuntimeError("not bound to a request")


class UnreadableList(list[str]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("cannot be read")


class UncountableList(list[str]):
    def __len__(self) -> int:
        raise RuntimeError("cannot be counted")


class PairWithoutParts(tuple[str, str]):
    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("has no parts")


@pytest.mark.parametrize("odd", [UncountableList(["p", "1"]), PairWithoutParts(("p", "1"))], ids=["list", "tuple"])
def test_a_reference_to_a_prompt_that_cannot_be_read_costs_no_call(odd: Any, tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    with recording.session() as session:
        session.log_llm_request("m", prompt=odd)
        with session.llm_call("m", prompt=odd):
            pass
    assert len(recording.of_type("llm.request")) == 2


@pytest.mark.parametrize("kind", [Unbound, UnreadableList])
def test_what_cannot_be_looked_at_never_reaches_the_agent(kind: type[Any], tmp_path: Path) -> None:
    odd = kind()
    recording = Recording(tmp_path, on_error=None)
    with recording.session(
        "s", odd, user_id=odd, tags=odd, environment=odd, release=odd, agent_name=odd, more=odd
    ) as session:
        with recording.tracer.trace_turn(session, odd, traceparent=odd, tracestate=odd, more=odd) as turn:
            turn.output = odd
            session.log_llm_request(odd, odd, odd, prompt=odd)
            session.log_llm_response(odd, odd, odd, odd, odd, odd, odd)
            session.log_tool_call(odd, odd, odd)
            session.log_tool_result(odd, odd, odd, odd, odd, odd)
            session.log_thinking(odd, odd, odd)
            with session.llm_call(odd, odd, model_parameters=odd, tools=odd, prompt=odd, provider=odd) as llm:
                llm.finish(odd, odd, odd, {"total": odd}, odd, odd, model=odd, response_id=odd, duration_ms=odd)
            session.llm_call("m").finish(cost=odd)
            with session.tool_call(odd, odd, odd) as tool:
                tool.finish(odd, odd, odd, duration_ms=odd)
        session.outcome = odd
    with recording.tracer.trace_turn(odd):
        pass
    types = [event["event_type"] for event in recording.events()]
    assert (len(types), types[0], types[-1]) == (15, "session.start", "session.end")


@pytest.mark.parametrize("good_readings", range(20))
def test_an_error_of_our_own_is_counted_and_never_raised(good_readings: int, tmp_path: Path) -> None:
    # the clock comes from outside, so it is a part that can be broken without patching anything
    readings = iter(range(good_readings))
    tracer = Tracer(
        {"agent_trace": {"trace_dir": str(tmp_path)}},
        monotonic_ns=lambda: next(readings),
    )
    exercise(tracer)
    assert set(tracer.trouble.counts) == {"tracing: StopIteration"}


@pytest.mark.parametrize("delivery", ["thread", "external"])
def test_without_sinks_nothing_runs_in_the_background(delivery: str, tmp_path: Path) -> None:
    before = threading.active_count()
    recording = Recording(tmp_path, delivery=delivery)
    exercise(recording.tracer)
    assert threading.active_count() == before
    assert recording.tracer.flush(1) == 0
    recording.tracer.shutdown(1)
    exercise(recording.tracer)
    assert len(recording.of_type("session.end")) == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_with_ids_of_its_own(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    with recording.session() as session, recording.turn(session):
        session.log_thinking("before")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(3):
                    session.log_thinking("child")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for _ in range(3):
            session.log_thinking("parent")
    thoughts = recording.of_type("thinking")
    assert [event["data"]["content"] for event in thoughts] == ["before", *["child"] * 3, *["parent"] * 3]
    assert len({event["span_id"] for event in thoughts}) == 7
    assert {event["turn"] for event in thoughts} == {1}


KILLED = """
import os, signal, sys
from tracebridge import Tracer
tracer = Tracer({"agent_trace": {"trace_dir": sys.argv[1]}})
with tracer.trace_session("s") as session:
    session.log_thinking("last words")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_survives_the_death_of_the_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert b"last words" in (tmp_path / "session-s" / "events.jsonl").read_bytes()
