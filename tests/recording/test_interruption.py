"""What a signal handler of the agent raises in the middle of a recording is the agent's, whatever its type."""

from __future__ import annotations

import functools
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import jsonvalue
from tracebridge.interruption import is_interruption

SIGNAL = signal.SIGALRM


class SoftTimeLimitExceededError(Exception):
    pass


class Interrupted:
    """In the middle of its being recorded for the first time comes a signal."""

    came = False

    def __repr__(self) -> str:
        if not self.came:
            self.came = True
            signal.raise_signal(SIGNAL)
        return "interrupted"


class Frank:
    """Looks who asks, and fails by itself."""

    def __repr__(self) -> str:
        number, caller = 1, sys._getframe(1)
        raise ValueError(number, caller)


class Forgetful:
    """Fails in a method that has put something else in the place of its arguments."""

    def model_dump(self, *fields: Any) -> Any:
        fields = None  # type: ignore[assignment]
        raise ValueError(fields)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path, on_error=None)


@pytest.fixture(autouse=True)
def handler_before() -> Iterator[None]:
    before = signal.getsignal(SIGNAL)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(SIGNAL, before)


def raising(error: BaseException) -> Callable[[int, Any], None]:
    def handler(signum: int, frame: Any) -> None:
        raise error

    return handler


class Worker:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_signal(self, *args: Any) -> None:
        self.give_up()

    def give_up(self) -> None:
        raise self.error


def partly(prefix: str, signum: int, frame: Any, *, error: BaseException) -> None:
    raise error


HANDLERS = [
    pytest.param(raising, id="function"),
    pytest.param(lambda error: Worker(error).on_signal, id="method"),
    pytest.param(lambda error: functools.partial(partly, "x", error=error), id="partial"),
]


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("error", [SoftTimeLimitExceededError("now"), TimeoutError("now")], ids=["soft", "os"])
def test_a_time_limit_by_a_signal_ends_what_the_agent_does(
    error: Exception, handler: Callable[[BaseException], Any], recording: Recording
) -> None:
    signal.signal(SIGNAL, handler(error))
    with recording.session() as session, recording.turn(session):
        for record in (
            lambda: session.log_thinking(Interrupted()),
            lambda: session.log_llm_request("m", [{"content": [Interrupted()]}]),
            lambda: session.log_llm_response("m", duration_ms=Interrupted()),
            lambda: session.log_tool_result(Interrupted()),
            lambda: session.llm_call("m").finish({"a": Interrupted()}),
            lambda: session.tool_call("t", Interrupted()).__enter__(),
            lambda: recording.turn(session, Interrupted()).__enter__(),
            lambda: recording.session("t", {"a": Interrupted()}).__enter__(),
        ):
            with pytest.raises(type(error)) as caught:
                record()
            assert caught.value is error
    assert recording.tracer.trouble.counts == {}


def test_a_time_limit_that_comes_at_any_moment_is_heard_of(recording: Recording) -> None:
    signal.signal(SIGNAL, raising(TimeoutError("now")))
    messages = [{"role": "user", "content": "x" * 200}] * 50
    deadline = time.monotonic() + 60

    def record_for(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while time.monotonic() < deadline:
            session.log_llm_request("m", messages)

    # Python itself passes over what is raised while it runs the finalizers of garbage, here that of other tests
    gc.disable()
    try:
        with recording.session() as session:
            for number in range(100):
                with pytest.raises(TimeoutError):
                    record_for(0.001 + number * 0.00001)
    finally:
        gc.enable()
    assert recording.events()[-1]["event_type"] == "session.end"
    assert recording.tracer.trouble.counts == {}


def test_a_time_limit_that_comes_within_an_import_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_again_and_again.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def out_of_time(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_name == "_call_with_frames_removed":
            raise SoftTimeLimitExceededError

    def import_again_and_again() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        try:
            while True:
                sys.modules.pop("imported_again_and_again", None)
                __import__("imported_again_and_again")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    signal.signal(SIGNAL, out_of_time)
    with pytest.raises(SoftTimeLimitExceededError) as caught:
        import_again_and_again()
    assert is_interruption(caught.value)


def test_a_value_that_fails_by_itself_reaches_nobody(recording: Recording) -> None:
    with recording.session() as session:
        session.log_thinking(Frank())
    assert recording.only("thinking")["data"]["content"] == "<Frank: ValueError when it was recorded>"


def test_a_value_that_fails_with_other_arguments_than_it_was_given_costs_itself_only(recording: Recording) -> None:
    with recording.session() as session:
        session.log_tool_call("search", {"city": "Oslo", "odd": Forgetful()})
    shown = "<Forgetful: ValueError when it was recorded>"
    assert recording.only("tool.call")["data"] == {"tool_name": "search", "args": {"city": "Oslo", "odd": shown}}


def test_a_value_that_is_encoded_while_a_signal_comes_is_no_text_of_it() -> None:
    signal.signal(SIGNAL, raising(SoftTimeLimitExceededError("now")))
    for value in (Interrupted(), {Interrupted(): 1}, [Interrupted()]):
        with pytest.raises(SoftTimeLimitExceededError):
            jsonvalue.encode(value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError("now")], ids=["Ctrl-C", "time limit"])
def test_a_turn_whose_begin_is_interrupted_is_over(error: BaseException, recording: Recording) -> None:
    signal.signal(SIGNAL, raising(error))
    with recording.session() as session:
        with pytest.raises(type(error)), recording.turn(session, Interrupted()):
            pass
        session.log_thinking("outside of turns")
        with recording.turn(session, "again"):
            pass
    assert [event["turn"] for event in recording.of_type("thinking")] == [0]
    assert "parent_id" not in recording.only("turn.start")
    assert recording.of_type("turn.end")[0]["data"]["error"]["type"] == type(error).__name__


def test_a_session_whose_begin_is_interrupted_is_over_and_may_be_begun_again(recording: Recording) -> None:
    signal.signal(SIGNAL, raising(KeyboardInterrupt()))
    session = recording.session("s", {"a": Interrupted()})
    with pytest.raises(KeyboardInterrupt), session:
        pass
    with session:
        pass
    assert [event["event_type"] for event in recording.events()][-2:] == ["session.start", "session.end"]
    assert len({event["run_id"] for event in recording.events()}) == 2
