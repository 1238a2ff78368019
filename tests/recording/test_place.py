from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.recording.rig import Recording
from tracebridge import Session, Turn
from tracebridge.recording.place import INNERMOST


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def stream(session: Session) -> Iterator[str]:
    with session.llm_call("m") as call:
        yield "a"
        yield "b"
        call.finish("ab")


async def async_stream(session: Session) -> AsyncIterator[str]:
    with session.llm_call("m") as call:
        for text in "ab":
            await asyncio.sleep(0)
            yield text
        call.finish("ab")


async def until_closed(recording: Recording, count: int) -> None:
    """Wait for the event loop to close the generators that were broken off: it does so in tasks of its own."""
    while len(recording.of_type("llm.response")) < count:
        await asyncio.sleep(0)


def parents(recording: Recording, event_type: str) -> list[tuple[str, int] | None]:
    """Of each event of a type, which event opened the span that it is a part of, and in which turn."""
    spans: dict[str, tuple[str, int]] = {}
    for event in recording.events():
        spans.setdefault(event["span_id"], (event["event_type"], event["turn"]))
    return [spans.get(event.get("parent_id", "")) for event in recording.of_type(event_type)]


def test_what_follows_a_broken_off_stream_is_no_part_of_its_call(recording: Recording) -> None:
    async def work() -> None:
        with recording.session() as session:
            for number in (1, 2):
                with recording.turn(session):
                    async for _ in async_stream(session):
                        break
                    await until_closed(recording, number)
                    with session.tool_call("t"):
                        pass
                    session.log_tool_call("u")
            session.log_thinking("outside of turns")

    asyncio.run(work())
    assert parents(recording, "tool.call") == [("turn.start", 1)] * 2 + [("turn.start", 2)] * 2
    assert [event["turn"] for event in recording.of_type("thinking")] == [0]
    assert parents(recording, "turn.start") == [None, None]


def test_a_turn_is_no_part_of_one_that_is_over_whose_stream_was_half_read(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session) as first:
            half_read = stream(session)
            next(half_read)
        session.log_thinking("between")
        with recording.turn(session) as second:
            session.log_tool_call("t")
            assert list(half_read) == ["b"]
            session.log_tool_call("u")
    assert first.trace_id != second.trace_id
    assert parents(recording, "turn.start") == [None, None]
    assert parents(recording, "tool.call") == [("turn.start", 2)] * 2
    assert [event["turn"] for event in recording.of_type("thinking")] == [0]
    assert [event["turn"] for event in recording.of_type("llm.response")] == [1]


def test_streams_that_are_read_side_by_side_leave_the_turn_as_it_was(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session):
            one, other = stream(session), stream(session)
            next(one), next(other), list(one), list(other)
            session.log_tool_call("t")
        session.log_thinking("outside")
    assert parents(recording, "tool.call") == [("turn.start", 1)]
    assert [event["turn"] for event in recording.of_type("thinking")] == [0]


def test_a_turn_of_another_session_goes_on_when_the_one_around_it_ends(recording: Recording) -> None:
    def agent(session_id: str) -> Iterator[None]:
        with recording.session(session_id) as session, recording.turn(session):
            with session.tool_call("t"):
                yield
                session.log_thinking(session_id)
            session.log_thinking(session_id)

    agents = [agent("one"), agent("two")]
    for one in [*agents, *agents]:
        next(one, None)
    for name in ("one", "two"):
        inside, after = recording.of_type("thinking", name)
        assert inside["parent_id"] == recording.only("tool.call", name)["span_id"]
        assert after["parent_id"] == recording.only("turn.start", name)["span_id"]
    assert INNERMOST.get() is None


def test_sessions_whose_streams_were_broken_off_are_not_kept(recording: Recording) -> None:
    async def job(number: int) -> weakref.ref[Session]:
        with recording.session(str(number)) as session:
            with recording.turn(session):
                async for _ in async_stream(session):
                    break
            return weakref.ref(session)

    async def agent(number: int) -> AsyncIterator[None]:
        with recording.session(f"agent {number}") as session, recording.turn(session):
            yield

    async def work() -> int:
        for number in range(20):
            await job(number)
            async for _ in agent(number):
                break
            await asyncio.sleep(0)
        gc.collect()
        depth, place = 0, INNERMOST.get()
        while place is not None:
            depth, place = depth + 1, place.enclosing
        return depth

    assert asyncio.run(work()) <= 2


def end_elsewhere(*blocks: Session | Turn) -> None:
    def end() -> None:
        for block in blocks:
            block.__exit__(None, None, None)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()


def test_sessions_that_another_thread_ends_are_not_kept(recording: Recording) -> None:
    open_before: list[Session] = []
    for _ in range(20):
        session = recording.session()
        session.__enter__()
        end_elsewhere(*open_before)
        open_before = [session]
    del session
    places = []
    place = INNERMOST.get()
    while place is not None:
        places.append(place)
        place = place.enclosing
    assert len(places) <= 3


def test_what_comes_late_of_a_session_that_another_thread_ended_keeps_its_turn(recording: Recording) -> None:
    session = recording.session()
    session.__enter__()
    turn = recording.turn(session)
    turn.__enter__()
    end_elsewhere(turn, session)
    for _ in range(2):
        with recording.session("other") as other, recording.turn(other), session.tool_call("late"):
            pass
        session.log_thinking("late")
    late = [event for event in recording.events() if event["event_type"] in ("tool.call", "thinking")]
    assert [event["turn"] for event in late] == [1] * 4
