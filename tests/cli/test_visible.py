"""Whoever wrote what is in a trace does not command the terminal on which somebody looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivery.rig import LONG_AGO, session_lines
from tests.workplace import Workplace, both
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

HOSTILE = "s\x1b[2J\u202e"
"""Clears the screen, and turns the direction of writing."""


@pytest.fixture
def place(tmp_path: Path, devserver: DevServer) -> Workplace:
    """One session whose id and content are hostile, each span of it a dead letter of both sinks."""
    place = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, **both(devserver)}, delivery="external")
    tracer = place.tracer()
    with tracer.trace_session(HOSTILE) as session, tracer.trace_turn(session, user_input=HOSTILE) as turn:
        turn.output = HOSTILE
    tracer.shutdown()
    devserver.faults.add(Fault(route="POST *", status=400, body=f'{{"message": "no {HOSTILE}"}}'))
    assert place.call("ship").returncode == 1
    return place


@pytest.mark.parametrize(
    "command",
    [
        *(("status",), ("validate",), ("validate", "--session", HOSTILE), ("open", HOSTILE), ("dead", "list")),
        *(("dead", "show", "1"), ("migrate", "status"), ("restore", "--from", "langfuse", "--session", HOSTILE)),
    ],
    ids=lambda command: command[0],
)
def test_what_a_command_prints_holds_no_control_characters(place: Workplace, command: tuple[str, ...]) -> None:
    to = ("--out", str(place.folder / "out")) if command[0] == "restore" else ()
    printed = [place.call(*command, *to), place.call("validations")]
    for ran in printed:
        assert not {"\x1b", "\u202e"} & {*ran.stdout, *ran.stderr}, ran.stdout + ran.stderr
    if command[0] in ("open", "dead", "restore"):  # ids are written out; of what a backend says it is left out
        assert "\\x1b[2J\\u202e" in printed[0].stdout


def test_a_folder_that_bears_a_hostile_id_as_the_original_named_it_is_shown_without_control_characters(
    tmp_path: Path, devserver: DevServer
) -> None:
    place = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, **both(devserver)}, delivery="external")
    broken = '{"timestamp": "2026-02-06T22:10:00.123Z", "event_type": "turn.sta\n'
    for root in (place.trace_dir, tmp_path / "old"):
        session = root / f"session-{HOSTILE}"
        session.mkdir(parents=True)
        whole = session_lines(HOSTILE, turns=1, tool=HOSTILE, end=True, at=LONG_AGO)
        (session / "events.jsonl").write_text("\n".join([*whole[:2], broken, *whole[2:], ""]), encoding="utf-8")
    ran = {
        command: place.call(*command)
        for command in (
            *(("backfill", str(tmp_path / "old"), "--dry-run"), ("backfill", str(tmp_path / "old")), ("status",)),
            *(("validate",), ("validations",), ("prune", "--older-than", "0s"), ("dead", "list"), ("doctor",)),
            *(("forget", HOSTILE), ("forget", "--folder", str(tmp_path / HOSTILE)), ("migrate", "status")),
            ("validate", "--left", str(tmp_path / "old"), "--right", str(place.trace_dir)),
        )
    }
    told = {command: one.stdout + one.stderr for command, one in ran.items()}
    assert [command for command, text in told.items() if {"\x1b", "\u202e"} & {*text}] == []
    assert "session-s\\x1b[2J\\u202e/events.jsonl: byte" in told["status",]
