"""What a process does while it is killed: functions that a traced child runs, each with what must be there before."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.durability.place import Place
from tracebridge import Tracer
from tracebridge.cli.delivery import deliver_all
from tracebridge.delivery.removal import Removal
from tracebridge.delivery.state import State
from tracebridge.journal import deletion, layout

OLD_TRACES = Path(__file__).resolve().parent.parent / "data" / "legacy"
PATIENCE_S = 10.0
NEXT_DAY_NS = 24 * 3600 * 1_000_000_000

Told = Callable[[], object]
"""Called after each event that was recorded."""


class Scenario(NamedTuple):
    """What is killed. It is tried as soon as a `Case` in `test_kill` names it and a backend."""

    prepare: Callable[[Place], None]
    """Makes what is there before; not traced."""
    run: Callable[[str], None]
    """What a child does from its first counted system call on. Takes the place as JSON."""
    records: bool = False
    """Whether the run tells its progress in recording."""
    afterwards: Callable[[Place], None] | None = None
    """What must be so, besides, once the next process has recovered."""


# --- agents -----------------------------------------------------------------------------------------------------------


def work(tracer: Tracer, session_id: str, told: Told) -> None:
    """A session of two turns, with every kind of call."""
    with tracer.trace_session(session_id, metadata={"plan": "pro"}, user_id="u1", tags=["killed"]) as session:
        told()
        with tracer.trace_turn(session, user_input="What is the weather?") as turn:
            told()
            session.log_llm_request("gpt-4o", [{"role": "user", "content": "What is the weather?"}])
            told()
            session.log_tool_call("weather", {"city": "Oslo"}, call_id="c1")
            told()
            session.log_tool_result("weather", True, {"celsius": -4}, call_id="c1")
            told()
            session.log_llm_response("gpt-4o", "Minus four.", {"input": 3, "output": 2}, thinking="A tool knows.")
            told()
            turn.output = "Minus four."
        told()
        with tracer.trace_turn(session, user_input="And tomorrow?") as turn:
            told()
            session.log_thinking("Nobody knows.", stage="planning")
            told()
            turn.output = "Nobody knows."
        told()
        session.outcome = "solved"
    told()


def leave_open(tracer: Tracer, session_id: str) -> None:
    """A session that stops in the middle of a tool call."""
    session = tracer.trace_session(session_id).__enter__()
    tracer.trace_turn(session, user_input="Go on").__enter__()
    session.log_tool_call("search", {"q": 1}, call_id="c1")


def record(tracer: Tracer, session_id: str) -> None:
    """A short session."""
    with tracer.trace_session(session_id) as session, tracer.trace_turn(session, user_input="later") as turn:
        turn.output = "done"


def the_next_day() -> int:
    """A wall clock by which everything that is open now was given up long ago."""
    return time.time_ns() + NEXT_DAY_NS


def _progress(place: Place) -> Told:
    descriptor = os.open(place.progress, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return lambda: os.write(descriptor, b".")


# --- what is there before ---------------------------------------------------------------------------------------------


def nothing(place: Place) -> None:
    """The first process of all."""


def two_sessions_and_an_open_one(place: Place) -> None:
    tracer = Tracer(place.settings)
    for number in range(2):
        work(tracer, f"{place.prefix}-{number}", lambda: None)
    leave_open(tracer, f"{place.prefix}-open")
    tracer.shutdown()


def two_delivered_sessions(place: Place) -> None:
    tracer = Tracer(place.settings)
    for number in range(2):
        work(tracer, f"{place.prefix}-{number}", lambda: None)
    tracer.shutdown()
    (delivered,) = deliver_all(place.settings, PATIENCE_S)
    assert not delivered.left, delivered


def old_traces(place: Place) -> None:
    """Three sessions in the original format, under ids of this place's own."""
    shutil.copytree(OLD_TRACES, place.old)
    for folder in list(place.old.iterdir()):
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes().replace(b"gardener", place.prefix.encode()))
        folder.rename(folder.with_name(folder.name.replace("gardener", place.prefix)))


# --- what is killed ---------------------------------------------------------------------------------------------------


def write(place_text: str) -> None:
    place = Place.from_json(place_text)
    tracer = Tracer(place.settings)
    work(tracer, f"{place.prefix}-0", _progress(place))
    tracer.shutdown()


def write_and_ship(place_text: str) -> None:
    """As `write`, where the place says that a thread ships."""
    place = Place.from_json(place_text)
    tracer = Tracer(place.settings)
    work(tracer, f"{place.prefix}-0", _progress(place))
    tracer.shutdown(PATIENCE_S)


def ship(place_text: str) -> None:
    place = Place.from_json(place_text)
    (delivered,) = deliver_all(place.settings, PATIENCE_S)
    assert not delivered.left, delivered


def backfill(place_text: str) -> None:
    place = Place.from_json(place_text)
    state = State(layout.state_file(place.trace_dir))
    state.folder(place.old)
    state.close()
    (delivered,) = deliver_all(place.settings, PATIENCE_S)
    assert not delivered.left, delivered


def tidy_up(place_text: str) -> None:
    """What becomes of a spool once everything is delivered."""
    removal = Removal(Place.from_json(place_text).settings)
    removal.remove_older_than(0.0)
    removal.close()


def nothing_is_left_half_removed(place: Place) -> None:
    """The next process finishes what the dead one began."""
    tidy_up(place.to_json())
    assert list(deletion.removed(place.trace_dir)) == []
    assert place.session_folders() == []
    left = sorted(str(path.relative_to(place.trace_dir)) for path in place.trace_dir.rglob("*"))
    kept = [path for path in left if not path.startswith(layout.STATE_FOLDER)]
    assert kept == [], f"{kept=}"


WRITER = Scenario(nothing, write, records=True)
SHIPPER = Scenario(two_sessions_and_an_open_one, ship)
AGENT = Scenario(nothing, write_and_ship, records=True)
BACKFILL = Scenario(old_traces, backfill)
SPOOL = Scenario(two_delivered_sessions, tidy_up, afterwards=nothing_is_left_half_removed)
